"""A picture -> the square of pixels that a tower takes. Without torch, so that a service can start without it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SQUASH, CROP = "squash", "crop"  # the whole picture, however long; or its middle square


@dataclass(frozen=True)
class Preparation:
    """How pictures are made to fit: `size` px a side, by `way` (squash or crop) and a filter of Pillow's."""

    size: int
    way: str
    filter: int = Image.Resampling.BICUBIC

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An RGB picture -> uint8 (size, size, 3)."""
        if self.way == SQUASH:
            return np.asarray(image.resize((self.size, self.size), Image.Resampling(self.filter)))
        # The arithmetic of torchvision's Resize and CenterCrop, to the last pixel: models were trained behind those.
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = int(self.size * long / short)
        if short != self.size:
            new = (self.size, scaled) if width <= height else (scaled, self.size)
            image = image.resize(new, Image.Resampling(self.filter))
        left, top = (round((side - self.size) / 2.0) for side in image.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))
