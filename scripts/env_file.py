"""Reads `.env` as `docker compose` does, with nothing but Python."""


def read_env(text: str) -> dict[str, str]:
    """Names and values of a `.env` file: without quotes, and without what stands behind ` #`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): _value(value.strip()) for name, value in pairs}


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and text.find(text[0], 1) > 0:
        return text[1 : text.index(text[0], 1)]
    return text.split(" #", 1)[0].rstrip()
