"""A converted encoder's tower in 8-bit numbers, beside the others in the cache: made by NNCF, calibrated by some."""

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from closedloop.errors import EncoderUnavailable, MissingExtra
from closedloop.models import conversions, manifest
from closedloop.models.backends import INT8

NOTE = "note.json"


@contextlib.contextmanager
def made(name: str, own: Path, pixels: np.ndarray) -> Iterator[Path]:
    """A new tower in a folder of its own below `own`, while the block runs, unless it is kept.

    `pixels` uint8 (n, side, side, 3) calibrate it. Raises MissingExtra, EncoderUnavailable.
    """
    partial = own / f"{INT8}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pixels.npy"
            np.save(file, pixels)
            said = conversions.asked({"quantize": str(own), "into": str(partial), "pixels": str(file)}, name)
        if "missing" in said:
            raise MissingExtra(what="NNCF", extra="int8")
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def keep(own: Path, partial: Path, note: dict[str, Any]) -> None:
    """Have a tower used from now on, with a note of how good it is; a former one goes."""
    (partial / NOTE).write_text(json.dumps(note), encoding="utf-8")
    manifest.write(partial)
    former = own / f"{INT8}.{uuid.uuid4().hex}.former"
    with contextlib.suppress(FileNotFoundError):
        os.replace(own / INT8, former)
    os.replace(partial, own / INT8)
    shutil.rmtree(former, ignore_errors=True)


def kept(own: Path, name: str) -> Path:
    """The folder of the tower that was kept. Raises EncoderUnavailable where there is none, or it has changed."""
    folder = own / INT8
    try:
        manifest.check(folder)
    except (OSError, ValueError) as error:
        reason = "it was never made here" if not folder.exists() else f"it is damaged ({error})"
        reason = f"in 8-bit numbers {reason}; `closedloop encoder quantize` makes it."
        raise EncoderUnavailable(name=name, reason=reason) from None
    return folder
