"""The S3 store, by plain calls that every S3 server knows. The only module that imports s3fs."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.exceptions import FSTimeoutError

from closedloop.errors import StoreAway
from closedloop.settings import Settings

PRODUCTION = "production"
LABEL_STUDIO = "labelstudio"
TRACKING = "tracking"
MODELS = "models"
THUMBNAILS = "thumbnails"  # small copies for the pages, made when first looked at
PATIENCE = 10.0  # s until a store that does not answer is away: a page waits for this. What reads, tries again
SLOWEST = 500_000  # bytes/s at which it must take what is written
BUCKETS = (PRODUCTION, LABEL_STUDIO, TRACKING, MODELS, THUMBNAILS)


@dataclass(frozen=True)
class Listed:
    """One object of a listing: its key (bucket first), size in bytes, and a text that changes when it is rewritten."""

    key: str
    size: int
    version: str
    modified: dt.datetime | None


class Objects:
    """Buckets of write-once objects. Keys begin with their bucket: `production/food11/class_03/<id>.jpg`."""

    def __init__(self, endpoint_url: str, key: str, secret: str, patience: float = PATIENCE) -> None:
        self.endpoint_url = endpoint_url
        self._patience = patience
        self._fs = s3fs.S3FileSystem(
            key=key,
            secret=secret,
            endpoint_url=endpoint_url,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": 3,
                "read_timeout": patience,
                "retries": {"total_max_attempts": 2},
            },
        )
        self._fs.retries = 2  # where an answer breaks off; by default s3fs repeats five times what botocore repeats

    @classmethod
    def from_settings(cls, settings: Settings) -> "Objects":
        """The store that the settings name; raises MissingSetting."""
        return cls(
            settings.require("s3_endpoint_url"),
            settings.require("aws_access_key_id"),
            settings.require("aws_secret_access_key"),
        )

    def put(self, key: str, data: bytes) -> None:
        """Store an object whole: it is there with all its bytes, or not at all. Raises StoreAway."""
        with _away_said_plainly():
            self._write(key, data)

    def get(self, key: str) -> bytes:
        """The bytes of an object; raises FileNotFoundError or StoreAway."""
        with _away_said_plainly():
            data: Any = self._fs.cat_file(key)
        return data

    def _write(self, key: str, data: Any) -> None:
        # No time-out of botocore's holds while the server has not said "100 Continue" or does not read the body.
        self._fs.pipe_file(key, data, timeout=self._patience + len(data) / SLOWEST)

    def exists(self, key: str) -> bool:
        """Whether there is an object at this key. Raises StoreAway."""
        with _away_said_plainly():
            return self._fs.exists(key, timeout=self._patience)

    def move(self, source: str, target: str) -> None:
        """Copy an object, then remove the first. Killed in between, both are there. Raises StoreAway."""
        with _away_said_plainly():
            self._write(target, self._fs.cat_file(source))
            self._fs.rm_file(source)

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens where there is none. Raises StoreAway."""
        with _away_said_plainly(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(key)

    def list(self, prefix: str) -> list[Listed]:
        """All objects below a prefix (a folder), sorted by key. Raises StoreAway."""
        with _away_said_plainly():
            try:
                found: Any = self._fs.find(prefix, detail=True)
            except FileNotFoundError:
                return []
        return [
            Listed(
                key, info["size"], f"{info.get('ETag', '')}/{info.get('LastModified', '')}", info.get("LastModified")
            )
            for key, info in sorted(found.items())
        ]

    def make_buckets(self) -> None:
        """Make the buckets that are missing, each with the marker that an empty prefix needs. Raises StoreAway."""
        with _away_said_plainly():
            there = {entry.rstrip("/") for entry in self._fs.ls("", detail=False, refresh=True)}
            for bucket in BUCKETS:
                if bucket not in there:
                    self._fs.mkdir(bucket)

    def check(self, *buckets: str) -> None:
        """Raise StoreAway unless these buckets are there and this key may use them."""
        with _away_said_plainly():
            for bucket in buckets:
                try:
                    self._fs.call_s3("get_bucket_location", Bucket=bucket, timeout=self._patience)
                except FileNotFoundError as error:
                    raise StoreAway from OSError(f"the bucket {bucket} is missing: {error}")


@contextlib.contextmanager
def _away_said_plainly() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except FSTimeoutError:
        raise StoreAway from TimeoutError("it did not answer in time")
    except (BotoCoreError, ClientError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise StoreAway from error
