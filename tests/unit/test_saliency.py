"""What stands out: a lone thing where it lies, nothing in one colour."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from closedloop.models.saliency import SIZE, SPREAD, dominant, saliency


def picture_with_a_spot(x: float, y: float, width: int = 320, height: int = 200) -> Image.Image:
    noise = np.random.default_rng(1).integers(90, 110, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse(
        [(x - 0.06) * width, (y - 0.06) * height, (x + 0.06) * width, (y + 0.06) * height], fill="white"
    )
    return image


@settings(max_examples=25, deadline=None)
@given(st.floats(0.15, 0.85), st.floats(0.15, 0.85), st.sampled_from([7, 14]))
def test_a_lone_thing_stands_out_where_it_lies(x, y, side):
    cells = saliency(picture_with_a_spot(x, y), side)
    assert cells.shape == (side, side)
    assert cells.dtype == np.float32
    assert cells.min() >= 0
    assert cells.max() == 1
    assert dominant(cells) == pytest.approx((x, y), abs=0.13)  # a cell of 7, and half the blur


def test_it_is_the_spectral_residual_as_published():
    image = picture_with_a_spot(0.4, 0.7, SIZE, SIZE)
    spectrum = np.fft.fft2(np.asarray(image.convert("L")) / 255)
    strength = np.log(np.abs(spectrum))
    residual = strength - ndimage.uniform_filter(strength, 3, mode="wrap")
    stands_out = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = ndimage.gaussian_filter(stands_out, SPREAD * SIZE, mode="wrap", truncate=8)
    cells = smooth.reshape(8, SIZE // 8, 8, SIZE // 8).mean(axis=(1, 3))
    np.testing.assert_allclose(saliency(image, 8), cells / cells.max(), atol=1e-3)


def test_nothing_stands_out_in_one_colour():
    assert not saliency(Image.new("RGB", (50, 80), "teal"), 7).any()
    assert saliency(Image.new("RGB", (1, 1)), 3).shape == (3, 3)


def test_a_mirrored_picture_has_a_mirrored_map():
    image = picture_with_a_spot(0.3, 0.6, 256, 256)
    mirrored = saliency(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 8)
    np.testing.assert_allclose(mirrored, saliency(image, 8)[:, ::-1], atol=1e-3)


def test_the_dominant_point_is_the_middle_of_the_strongest_cell():
    cells = np.zeros((4, 4), np.float32)
    cells[1, 3] = 1
    assert dominant(cells) == (0.875, 0.375)
