"""The pages' English: every text that a person reads stands in `texts/en.toml`, by page and name."""

import functools
import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "texts" / "en.toml"


@functools.cache
def catalogue() -> dict[str, str]:
    """Name ("page.text") -> text."""
    pages = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {f"{page}.{name}": text for page, texts in pages.items() for name, text in texts.items()}


def text(name: str, /, **values: Any) -> str:
    """The text of this name with its `{values}` filled in; raises KeyError where there is none."""
    return catalogue()[name].format(**values)


def error_text(code: str, otherwise: str, /, **details: Any) -> str:
    """What a page says about an error: the text that stands under its code, else the error's own message."""
    known = catalogue().get(f"errors.{code}")
    return known.format(**details) if known else otherwise


def fault_text(fault: Any) -> str:
    """What a form says beside a field about one of pydantic's errors: our text for its type, else its own message."""
    known = catalogue().get(f"faults.{fault['type']}")
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in fault.get("ctx", {}).items()}
    said = known.format(**bounds) if known else str(fault["msg"]).removeprefix("Value error, ")
    return f"{said[:1].upper()}{said[1:]}"
