"""The digests of a folder's files, written last: a folder is whole where they are those of what lies in it."""

import hashlib
import json
from pathlib import Path

MANIFEST = "MANIFEST.json"


def write(folder: Path) -> None:
    """Note the SHA-256 of every file of a folder. Raises OSError."""
    digests = {file.name: _digest(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(digests), encoding="utf-8")


def check(folder: Path) -> None:
    """Raise OSError or ValueError where a file of the folder is gone, or is not what was written."""
    digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(digests, dict):
        raise ValueError(f"{MANIFEST} has changed")
    for name, expected in digests.items():
        if _digest(folder / name) != expected:
            raise ValueError(f"{name} has changed")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
