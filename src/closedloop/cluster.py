"""The same back-fill on several machines: Ray Data hands the pictures out, each machine reads and looks on its own.

The only module that imports Ray. A worker reads pictures from the store and computes its tower as `looked_at` does;
only vectors come back, and this process alone writes records.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from closedloop.backfill import Picture, Seen, looked_at
from closedloop.errors import ClusterAway, MissingExtra
from closedloop.installations import ChosenEncoder
from closedloop.settings import Settings, load_settings

BLOCK = 256  # pictures that a worker is given at once
PATIENCE = 5.0  # s for a cluster to answer at all
_SHARED = ("s3_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "closedloop_backend")


class Worker:
    """One machine's tower, loaded once."""

    def __init__(self, name: str, digest: str) -> None:
        """The encoder that the installation records; settings come from the environment. Raises EncoderUnavailable."""
        from closedloop.models.converted import Converted
        from closedloop.storage.objects import Objects

        settings = load_settings()
        self._objects = Objects.from_settings(settings)
        self._encoder, _ = Converted(settings.cache, settings.closedloop_backend).open(name, digest)

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Columns `image_id` and `key` -> `image_id`, `vector`, `fault`."""
        pictures = [Picture(str(id_), str(key)) for id_, key in zip(block["image_id"], block["key"], strict=True)]
        seen = list(looked_at(self._objects, self._encoder, pictures))
        return {
            "image_id": [one.image_id for one in seen],
            "vector": [one.vector for one in seen],
            "fault": [one.fault for one in seen],
        }


class Cluster:
    """A Ray cluster, while the block runs."""

    def __init__(self, address: str, settings: Settings, encoder: ChosenEncoder) -> None:
        """`address` as Ray takes it: HOST:PORT, ray://HOST:PORT, auto, or local. Raises MissingExtra, ClusterAway."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers of every run
        try:
            import ray.data
        except ImportError as error:
            raise MissingExtra(what="Ray", extra="cluster") from error
        self._ray, self._encoder = ray, encoder
        _check(address)
        shared = {name.upper(): _plain(getattr(settings, name)) for name in _SHARED}
        try:
            ray.init(address, runtime_env={"env_vars": shared}, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterAway(address=address, reason=str(error).splitlines()[0]) from error

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def looked_at(self, pictures: Sequence[Picture]) -> Iterator[Seen]:
        """What the cluster's workers see of pictures, as it comes. Raises ClusterAway."""
        self._ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"image_id": one.image_id, "key": one.key} for one in pictures]
        blocks = self._ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BLOCK))
        many, each = self._workers()
        seen = blocks.map_batches(
            Worker,
            fn_constructor_args=(self._encoder.name, self._encoder.digest),
            batch_size=BLOCK,
            concurrency=many,
            **each,
        )
        try:
            for row in seen.iter_rows():
                yield Seen(row["image_id"], row["vector"], row["fault"])
        except self._ray.exceptions.RayError as error:
            raise ClusterAway(address="the cluster", reason=_first_line(error)) from error

    def _workers(self) -> tuple[int, dict[str, Any]]:
        """How many workers, and what each of them takes: a GPU, where there are any; else all cores of a machine."""
        if gpus := int(self._ray.cluster_resources().get("GPU", 0)):
            return gpus, {"num_gpus": 1}
        cores = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        cores = [number for number in cores if number]
        return len(cores), {"num_cpus": min(cores)}


def _check(address: str) -> None:
    """Raise ClusterAway where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise ClusterAway(address=address, reason=f"nobody listens there ({error})") from error


def _plain(value: Any) -> str:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


def _first_line(error: Exception) -> str:
    """The last line of what Ray says has the cause; before it stands where it came through."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else repr(error)
