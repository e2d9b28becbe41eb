"""How far a tower that is computed in another way says the same as the reference."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

PICTURES = 8
LEAST_INT8 = 0.9  # that a tower in 8-bit numbers works at all; what it is worth, kept pictures say (quantization.py)
_SEED = 2026
_THINGS, _FLAT = 12, 0.7  # things in a picture; how much of one is its colour
_GREY = 0.8  # of the contrast: photographs differ more in brightness than in colour


def pictures(size: int) -> np.ndarray:
    """Made-up pictures that are always the same, uint8 (8, size, size, 3).

    They are as photographs are (Field 1987): as much contrast in each octave, most of it grey; and things with edges,
    none of one flat colour. In smoother ones a tower finds so little that rounding alone turns what it says by degrees.
    """
    random = np.random.default_rng(_SEED)
    return np.stack([np.asarray(like_a_photograph(size, random)) for _ in range(PICTURES)])


def like_a_photograph(size: int, random: np.random.Generator) -> Image.Image:
    """A made-up picture, RGB, `size` px a side."""
    canvas = np.zeros((size, size, 3))
    cells = 2
    while cells <= size:
        grey = random.standard_normal((cells, cells))
        for channel in range(3):
            noise = _GREY * grey + (1 - _GREY) * random.standard_normal((cells, cells))
            octave = Image.fromarray(noise.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
            canvas[..., channel] += np.asarray(octave)
        cells *= 2
    shade, contrast = random.uniform(70, 180), random.uniform(40, 60)
    ground = Image.fromarray(np.clip(shade + contrast * canvas, 0, 255).astype(np.uint8))
    things = ground.copy()
    draw = ImageDraw.Draw(things)
    for _ in range(_THINGS):
        left, top, width, height = random.uniform((0, 0, 0.05, 0.05), (0.9, 0.9, 0.4, 0.4)) * size
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((left, top, left + width, top + height), fill=colour)
    return Image.blend(ground, things, _FLAT)


def least_cosine(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """The smallest cosine (-1 to 1) between what two towers say of the same picture; what is no number says -1.

    Each of the two: arrays (n, ...) of what is said of n pictures, the same shapes in both.
    """
    least = 1.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (a, b))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        least = min(least, float(np.nan_to_num(cosines, nan=-1.0, posinf=-1.0, neginf=-1.0).min()))
    return least
