"""How fast pictures are answered about, beside peers and the machine's limit: `python -m bench.serving`."""

from pathlib import Path

RESULTS = Path("bench/results")


def cache() -> Path:
    """The encoders that were converted for the benches."""
    folder = (RESULTS / "cache").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
