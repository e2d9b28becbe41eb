"""An inference service in this process, without its HTTP: what it needs to be started, and pictures to ask about."""

import datetime as dt
import io
from pathlib import Path

import numpy as np
from inference_api.following import Follower
from inference_api.serving import Serving
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.models import backends
from closedloop.models.converted import Converted
from closedloop.storage import Stores
from tests.conftest import CACHE


class Starter:
    """`start(stores)`: what is served while it follows these stores, on the same disk each time, one at a time."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.follower: Follower | None = None

    def __call__(self, stores: Stores) -> Serving:
        self.stop()
        serving = Serving("embedded")
        # In the reference's precision, so that what it says can be compared with the reference to the last digits.
        converted = Converted(CACHE, backends.FP32)
        self.follower = Follower(serving, lambda: stores, converted, self.disk, lambda: dt.datetime.now(dt.UTC))
        self.follower.start()
        return serving

    def stop(self) -> None:
        if self.follower:
            self.follower.stop()


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture that looks like no other seed's."""
    buffer = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def ready(one: Serving, project: str = "pets") -> bool:
    """Whether it answers about a project."""
    try:
        return project in one.snapshot().projects
    except EncoderUnavailable:
        return False
