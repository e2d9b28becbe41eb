"""Do the backends say the same about real pictures? `make bench FOLDER=...` (one sub-folder per class), or
`python -m bench.agreement FOLDER`.

Every backend that works on this machine is compared with the reference (torch, fp32, on the processor): cosine of the
vectors, and labels by one head, fitted on the reference's vectors of one half of the pictures and asked about the
other. The encoder in 8-bit numbers is made here, calibrated by the half that the head learnt from.
"""

import argparse
import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.serving import RESULTS, cache, servers
from closedloop.estimates import wilson_interval
from closedloop.image import decode
from closedloop.models import classifier, quantized
from closedloop.models.backends import INT8, REFERENCE, Tower
from closedloop.models.converted import Choice, Converted
from closedloop.models.encoder import Encoder

SEED = 7
CALIBRATION = 300


def main() -> None:
    """Print a line a backend, write JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--a-class", type=int, default=200, help="pictures, at most")
    arguments.add_argument("--encoder", default="embedded", help="as CLOSEDLOOP_ENCODER, or vit: of random weights")
    given = arguments.parse_args()
    name = f"openclip:ViT-B-32@{servers.weights(cache())}" if given.encoder == "vit" else given.encoder
    encoder, choice = chosen(name, REFERENCE)
    pixels, labels = [], []
    for number, folder in enumerate(sorted(one for one in given.folder.iterdir() if one.is_dir())):
        files = sorted(folder.glob("*.*"))
        random.Random(SEED).shuffle(files)
        for file in files[: given.a_class]:
            pixels.append(encoder.prepare(decode(file.read_bytes(), encoder.size)))
            labels.append(number)
    pictures, truth = np.stack(pixels), np.array(labels)
    learnt = np.random.default_rng(SEED).permutation(len(truth)) < len(truth) // 2
    reference = vectors(encoder.tower, pictures)
    head = classifier.fit(reference[learnt], truth[learnt], np.arange(learnt.sum()), truth.max() + 1).head
    wanted = head.probabilities(reference[~learnt]).argmax(axis=1)
    right = float((wanted == truth[~learnt]).mean())
    print(f"{encoder.name}: {len(truth)} pictures; the head is right about {right:.3f} of the half that it did not see")
    said = {}
    usable = [one.backend for one in choice.trials if one.problem is None and one.backend != REFERENCE]
    for backend in [*usable, INT8]:
        with tower_of(name, encoder.digest, backend, pictures[learnt]) as tower:
            ours = vectors(tower, pictures)
        cosines = (ours * reference).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(reference, axis=1)
        same = int((head.probabilities(ours[~learnt]).argmax(axis=1) == wanted).sum())
        low, high = wilson_interval(same, len(wanted))
        said[backend] = {
            "cosine_least": float(cosines.min()),
            "cosine_median": float(np.median(cosines)),
            "same": same,
            "asked": len(wanted),
            "same_95": [low, high],
        }
        print(
            f"{backend:16} cosine least {cosines.min():.5f}, median {np.median(cosines):.5f}; "
            f"same label {same}/{len(wanted)} = {same / len(wanted):.4f} (95 %: {low:.4f} to {high:.4f})",
            flush=True,
        )
    file = RESULTS / f"agreement-{given.encoder.split(':')[0]}.json"
    file.write_text(json.dumps({"folder": given.folder.name, "right": right, **said}, indent=1), encoding="utf-8")


@contextlib.contextmanager
def tower_of(name: str, digest: str, backend: str, calibration: np.ndarray) -> Iterator[Tower]:
    """A backend's tower; the one in 8-bit numbers is made for the block."""
    if backend != INT8:
        yield chosen(name, backend)[0].tower
        return
    converted = Converted(cache())
    some = calibration[np.random.default_rng(SEED).permutation(len(calibration))[:CALIBRATION]]
    with quantized.made(name, converted.folder(digest), some) as folder:
        yield converted.quantized_tower(digest, folder)


def chosen(name: str, backend: str) -> tuple[Encoder, Choice]:
    """An encoder that is computed by a backend, which works here."""
    encoder, choice, _ = Converted(cache(), backend).choose(name)
    assert choice.backend == backend, choice.reason
    return encoder, choice


def vectors(tower: Tower, pictures: np.ndarray) -> np.ndarray:
    """(n, dimension) float32."""
    return np.concatenate([tower.look(pictures[at : at + 32])[0] for at in range(0, len(pictures), 32)])


if __name__ == "__main__":
    main()
