"""An inference service in this process, without its HTTP: what it needs to be started, and pictures to ask about."""

import asyncio
import datetime as dt
import inspect
import io
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from inference_api.following import Follower
from inference_api.pipeline import Pipeline
from inference_api.serving import Serving
from PIL import Image

from closedloop.errors import EncoderUnavailable
from closedloop.models import backends
from closedloop.models.converted import Converted
from closedloop.storage import Stores
from tests.conftest import CACHE

T = TypeVar("T")


def waited(said: Coroutine[Any, Any, T]) -> T:
    """What comes of a coroutine, in a thread of its own: the browser of other tests keeps a loop in this one."""
    with ThreadPoolExecutor(1) as one:
        return one.submit(asyncio.run, said).result()


class Answering:
    """A `Serving` whose answers are waited for."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def __getattr__(self, name: str) -> Any:
        said = getattr(self.serving, name)
        return (lambda *asked: waited(said(*asked))) if inspect.iscoroutinefunction(said) else said


class Starter:
    """`start(stores)`: what is served while it follows these stores, on the same disk each time, one at a time."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.follower: Follower | None = None
        self.pipeline = Pipeline()
        self.pipeline.start()

    def __call__(self, stores: Stores) -> Answering:
        self.stop_following()
        serving = Serving("embedded", self.pipeline)
        # In the reference's precision, so that what it says can be compared with the reference to the last digits.
        converted = Converted(CACHE, backends.FP32)
        self.follower = Follower(serving, lambda: stores, converted, self.disk, lambda: dt.datetime.now(dt.UTC))
        self.follower.start()
        return Answering(serving)

    def stop(self) -> None:
        self.stop_following()
        self.pipeline.stop()

    def stop_following(self) -> None:
        if self.follower:
            self.follower.stop()


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture that looks like no other seed's."""
    buffer = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def ready(one: Answering, project: str = "pets") -> bool:
    """Whether it answers about a project."""
    try:
        return project in one.snapshot().projects
    except EncoderUnavailable:
        return False
