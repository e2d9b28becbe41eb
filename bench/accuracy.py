"""How right is a release about pictures that it has not seen? `make bench FOLDER=...` (one sub-folder per class).

K-fold from outside: for each fold a project of its own gets the other folds by `closedloop import`, is trained by
`closedloop train`, and is then sent the fold's pictures over HTTP, as a visitor would. Every picture is asked about
once, by a release that has not seen it.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from closedloop.estimates import wilson_interval
from demo.installation import Installation, live_release, started

SEED = 11


def main() -> None:
    """Measure, print a line a fold and the sum, write JSON."""
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--out", type=Path, default=Path("bench/results/accuracy.json"))
    given = arguments.parse_args()
    classes = {entry.name: sorted(entry.glob("*.*")) for entry in sorted(given.folder.iterdir()) if entry.is_dir()}
    for files in classes.values():
        random.Random(SEED).shuffle(files)
    with started() as installation, tempfile.TemporaryDirectory() as place:
        folds = [fold(installation, classes, number, given.folds, Path(place)) for number in range(given.folds)]
    right, asked = sum(f["right"] for f in folds), sum(f["asked"] for f in folds)
    low, high = wilson_interval(right, asked)
    print(f"sum: {right}/{asked} right = {right / asked:.3f} (95 %: {low:.3f} to {high:.3f}, Wilson)")
    said = sum(f["said"] for f in folds) / asked
    print(f"mean confidence {said:.3f}; it should be what was right")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    body = {"folder": given.folder.name, "folds": folds, "accuracy": right / asked, "accuracy_95": [low, high]}
    given.out.write_text(json.dumps(body, indent=2) + "\n")


def fold(
    installation: Installation, classes: dict[str, list[Path]], number: int, of: int, place: Path
) -> dict[str, Any]:
    """Train a project on all folds but one, and ask it about that one."""
    project = f"fold-{number}"
    manifest = place / f"{project}.yaml"
    # The trainer is told to wait: `closedloop train` below is the only training.
    content = {"id": project, "title": project, "kind": "classification", "classes": list(classes)}
    manifest.write_text(yaml.safe_dump({**content, "train": {"at_least_new": 10**6}}))
    installation.command("project", "add", str(manifest))
    learn, ask = place / project, []
    for name, files in classes.items():
        (learn / name).mkdir(parents=True)
        for index, file in enumerate(files):
            if index % of == number:
                ask.append((file, name))
            else:
                shutil.copy(file, learn / name)
    began = time.perf_counter()
    installation.command("import", project, str(learn))
    imported = time.perf_counter()
    trained = installation.command("train", project)
    took = time.perf_counter() - imported
    while live_release(installation, project) != trained["release"]:
        time.sleep(0.2)
    right, said = 0, 0.0
    with httpx.Client(headers={"Accept": "application/json"}, timeout=60, trust_env=False) as http:
        for file, name in ask:
            body = http.post(
                f"{installation.pages}/p/{project}/predict", files={"file": (file.name, file.read_bytes())}
            ).json()
            assert body["release"] == trained["release"], body
            right += body["label"] == name
            said += body["confidence"]
    print(
        f"{project}: {right}/{len(ask)} right; its card says {trained['metrics']['accuracy']:.3f}; "
        f"import {imported - began:.0f} s, train {took:.0f} s",
        flush=True,
    )
    return {"right": right, "asked": len(ask), "said": said, "card": trained["metrics"], "train_seconds": took}


if __name__ == "__main__":
    main()
