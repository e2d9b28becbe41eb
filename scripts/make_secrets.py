"""Fills every empty secret of .env with a random value, and changes none that is there. Needs nothing but Python."""

import itertools
import os
import secrets
import sys
from pathlib import Path

from scripts.env_file import read_env

MARK = "(make secrets)"  # in .env.example, above each value that is made here
LENGTHS = {"AWS_ACCESS_KEY_ID": 20, "LABEL_STUDIO_API_KEY": 40}  # characters, where a program asks for so many at most


def main(folder: Path) -> int:
    """Fill `.env` in a folder with an `.env.example`; returns the exit status."""
    env, example = folder / ".env", folder / ".env.example"
    try:
        text = env.read_text(encoding="utf-8")
        wanted = wanted_names(example.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        print(f"{error}. Copy .env.example to .env, make it readable, and try again.", file=sys.stderr)
        return 1
    values, lines, made = read_env(text), text.splitlines(), []
    for name in wanted:
        if values.get(name):
            continue
        at = max((i for i, line in enumerate(lines) if line.split("=", 1)[0].strip() == name), default=None)
        line = f"{name}={secrets.token_hex(24)[: LENGTHS.get(name, 48)]}"
        made.append(name)
        if at is None:
            lines.append(line)
        else:
            lines[at] = line
    if made:
        partial = env.with_name(".env.partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(partial, env)
    print(f"Made: {', '.join(made)}." if made else "Every secret has a value already; nothing was changed.")
    return 0


def wanted_names(example: str) -> list[str]:
    """The names that `.env.example` marks."""
    lines = example.splitlines()
    return [
        after.split("=", 1)[0]
        for before, after in itertools.pairwise(lines)
        if before.startswith("#") and MARK in before
    ]


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
