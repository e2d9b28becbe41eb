"""A model of OpenCLIP (Cherti et al. 2023) from a safetensors file, with the preparation that belongs to it."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.models import feature_maps
from closedloop.models.nets import Net, unit
from closedloop.models.preparation import CROP, SQUASH, Preparation
from closedloop.models.spec import Spec
from closedloop.models.weights import sha256

TEXTS = 64  # read at once: thousands would take gigabytes
Words = Callable[[Sequence[str]], np.ndarray]
_WAYS = {"shortest": CROP, "squash": SQUASH}  # open_clip's names
_FILTERS = {"bilinear": Image.Resampling.BILINEAR}  # all others are bicubic


class OpenClipNet(Net):
    """The picture tower's layers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: Any, mean: Sequence[float], std: Sequence[float], size: int) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        with torch.inference_mode():
            maps = self._maps(torch.zeros((1, size, size, 3), dtype=torch.uint8), None)["image_intermediates"]
        # Two thirds of the way through a transformer's layers or a convolutional tower's ever coarser maps, where
        # texture was found in the embedded encoder, too.
        self._texture_layers = [2 * len(maps) // 3]
        self.side = min(maps[-1].shape[2:])
        self.channels = maps[-1].shape[1]

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tower's vector, and the texture of an inner map."""
        found = self._maps(pixels, self._texture_layers)
        return unit(found["image_features"]), feature_maps.texture(found["image_intermediates"])

    def grid(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patch tokens after the last norm, or the last map."""
        found = self._maps(pixels, 1, normalize_intermediates=True, intermediates_only=True)
        return feature_maps.grid(found["image_intermediates"], self.side)

    def _maps(self, pixels: torch.Tensor, layers: int | list[int] | None, **asked: bool) -> dict[str, Any]:
        """The tower's vectors and the maps (n, c, h, w) of some layers (a number: the last ones; None: all)."""
        scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self.tower.forward_intermediates(
            scaled.to(self.dtype).contiguous(), indices=layers, output_fmt="NCHW", **asked
        )


def read(name: str, architecture: str, weights: Path) -> tuple[Spec, Net, Words | None]:
    """What the encoder is, the layers of its picture tower, and its text tower where the file has one.

    Raises EncoderUnavailable.
    """
    import open_clip
    from open_clip.transformer import VisionTransformer
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if architecture.endswith(".json"):
        open_clip.add_model_config(Path(architecture))
        architecture = Path(architecture).stem
    model: Any
    prepare: Any
    try:
        model, _, prepare = open_clip.create_model_and_transforms(architecture, pretrained=None, load_weights=False)
        tensors = load_file(weights)
        # A file with the picture tower alone is fine: it then knows no words.
        knows_words = any(not key.startswith("visual.") and key != "logit_scale" for key in tensors)
        if knows_words:
            model.load_state_dict(tensors, strict=True)
        else:
            tower = {key.removeprefix("visual."): value for key, value in tensors.items() if key.startswith("visual.")}
            model.visual.load_state_dict(tower, strict=True)
        tokenizer = open_clip.get_tokenizer(architecture) if knows_words else None
    except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise EncoderUnavailable(name=name, reason=f"{weights}: {str(error)[:500]}") from None
    model.eval()
    pictures = model.visual.preprocess_cfg
    size = pictures["size"] if isinstance(pictures["size"], int) else max(pictures["size"])
    if pictures["resize_mode"] not in _WAYS or {size} != set(np.atleast_1d(pictures["size"])):
        reason = f"it wants pictures of {pictures['size']} px made by {pictures['resize_mode']!r}, which is not known."
        raise EncoderUnavailable(name=name, reason=reason)
    filter_ = _FILTERS.get(pictures["interpolation"], Image.Resampling.BICUBIC)
    net = OpenClipNet(model.visual, pictures["mean"], pictures["std"], size).eval()
    with torch.inference_mode():
        vectors, textures = net.look(torch.zeros((1, size, size, 3), dtype=torch.uint8))
    spec = Spec(
        name=name,
        digest=hashlib.sha256(f"{sha256(weights)} {architecture} {prepare}".encode()).hexdigest(),
        dimension=vectors.shape[1],
        texture_width=textures.shape[1],
        grid_side=net.side,
        grid_channels=net.channels,
        prepare=Preparation(size, _WAYS[pictures["resize_mode"]], filter_),
        # The preparation cuts off what is outside the middle square; where things are is asked of the whole picture.
        prepare_grid=Preparation(size, SQUASH),
        # What bfloat16 was measured to reach: the sums of a transformer are long, those of convolutions short.
        least_cosine=0.9999 if isinstance(model.visual, VisionTransformer) else 0.997,
        knows_words=knows_words,
        word_scale=float(model.logit_scale.exp().item()),
    )

    def words(texts: Sequence[str]) -> np.ndarray:
        assert tokenizer is not None
        parts = [list(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS)]
        with torch.inference_mode():
            return torch.cat([unit(model.encode_text(tokenizer(part))) for part in parts]).numpy()

    return spec, net, words if knows_words else None
