"""Fetch uv into a folder, with nothing but Python: `python3 scripts/get_uv.py FOLDER` makes FOLDER/bin/uv.

pip knows this machine's mirrors and proxies, so it is tried first; a Python without pip gets the wheel from PyPI, whose
digest PyPI itself states over TLS.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.13.9"
INDEX = "https://pypi.org/pypi/uv/{}/json"


def by_pip(folder: Path) -> bool:
    """Have pip fetch the wheel; False where there is no pip or it cannot."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", place]
        try:
            done = subprocess.run([*command, f"uv=={VERSION}"], stderr=subprocess.DEVNULL, check=False)  # noqa: S603
        except OSError:
            return False
        wheels = list(Path(place).glob("*.whl"))
        if done.returncode or not wheels:
            return False
        unpack(wheels[0].read_bytes(), folder)
        return True


def by_hand(folder: Path) -> None:
    """Fetch the wheel for this machine from PyPI."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    wanted = {
        "Linux": ["manylinux", f"_{machine}.whl"],
        "Darwin": ["macosx", "_arm64.whl" if machine == "aarch64" else "_x86_64.whl"],
    }[platform.system()]
    with urllib.request.urlopen(INDEX.format(VERSION), timeout=60) as answer:  # noqa: S310
        files = json.load(answer)["urls"]
    file = next(f for f in files if all(part in f["filename"] for part in wanted) and "musl" not in f["filename"])
    with urllib.request.urlopen(file["url"], timeout=300) as answer:  # noqa: S310
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != file["digests"]["sha256"]:
        sys.exit("uv: the download is damaged. Try again.")
    unpack(data, folder)


def unpack(wheel: bytes, folder: Path) -> None:
    """Take the program out of the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".data/scripts/uv"))
        program = archive.read(name)
    target = folder / "bin" / "uv"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    os.replace(partial, target)


def main() -> None:
    """Fetch uv, or say in one line why not."""
    folder = Path(sys.argv[1])
    try:
        if not by_pip(folder):
            by_hand(folder)
    except (OSError, KeyError, StopIteration) as error:
        sys.exit(
            f"uv {VERSION} could not be fetched ({error!r}). Connect this machine to PyPI, or install uv yourself: "
            "https://docs.astral.sh/uv/getting-started/installation/"
        )


if __name__ == "__main__":
    main()
