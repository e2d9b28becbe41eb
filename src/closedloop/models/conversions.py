"""Asks `conversion.py`, which is a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from closedloop.errors import EncoderUnavailable

SECONDS = 900  # a download of weights among them


def asked(what: dict[str, Any], name: str) -> dict[str, Any]:
    """What `conversion.py` says in a process of its own; raises EncoderUnavailable."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "closedloop.models.conversion", str(answer)]
        try:
            ended = subprocess.run(  # noqa: S603
                command, input=json.dumps(what), capture_output=True, text=True, timeout=SECONDS
            )
            said = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else None
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise EncoderUnavailable(name=name, reason=f"converting it failed: {error}") from error
    if said is None:
        reason = f"converting it ended with {ended.returncode}: {ended.stderr.strip()[-500:]}"
        raise EncoderUnavailable(name=name, reason=reason)
    if "unavailable" in said:
        raise EncoderUnavailable(**said["unavailable"])
    return said
