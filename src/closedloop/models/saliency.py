"""What stands out in a picture before anything is known of it: the spectral residual (Hou and Zhang 2007).

What is common to all pictures lies in the smooth part of a picture's log spectrum; what remains when that is taken
away, turned back into a picture, is what stands out in this one. Pictures are looked at small, since what stands out at
64 px are things and not their texture.
"""

import numpy as np
from PIL import Image

SIZE = 64  # px a side, squashed, as in the paper
SPREAD = 0.04  # of a side: the standard deviation of the final smoothing (the paper's filter of sigma 8 spans more)
_FAINT = 1e-9  # keeps the logarithm of a flat picture's spectrum finite


def saliency(image: Image.Image, side: int) -> np.ndarray:
    """How much each cell of a picture stands out, (side, side) float32, 0-1; the cell that does most has 1.

    A picture of one colour has 0 everywhere.
    """
    grey = np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255
    if grey.max() == grey.min():
        return np.zeros((side, side), np.float32)
    spectrum = np.fft.fft2(grey)
    strength = np.log(np.abs(spectrum) + _FAINT)
    residual = strength - _mean_of_neighbours(strength)
    standing_out = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    frequencies = np.fft.fftfreq(SIZE)
    blur = np.exp(-2 * np.square(np.pi * SPREAD * SIZE * frequencies))  # a Gaussian, in the spectrum
    smooth = np.fft.ifft2(np.fft.fft2(standing_out) * np.outer(blur, blur)).real.clip(0)
    small = Image.fromarray(smooth.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    cells = np.asarray(small)
    return cells / cells.max()


def dominant(cells: np.ndarray) -> tuple[float, float]:
    """Where a map (side, side) is strongest: x and y of that cell's middle, as fractions of width and height.

    The first of equals, so the upper left cell of a map that is the same everywhere.
    """
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    return (float(column) + 0.5) / cells.shape[1], (float(row) + 0.5) / cells.shape[0]


def _mean_of_neighbours(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its eight neighbours; a spectrum has no border, it goes on at the other side."""
    rows = values + np.roll(values, 1, axis=0) + np.roll(values, -1, axis=0)
    return (rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)) / 9
