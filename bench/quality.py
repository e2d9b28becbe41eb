"""How good are the heads on real answers? `python -m bench.quality FOLDER` (ten minutes; embedded encoder).

FOLDER holds `food101_10class/<class>/*.jpg` (labels), `visual_complexity/scores.csv` (a score of each picture of two
groups: of two pictures of a group, the one with the higher score is the chosen one) and `fruit_crops/boxes.json` (a box
on each picture); what is missing is left out. What is counted are a fit's own honest answers (`out_of_fold`): five
folds of whole groups, near-identical pictures together, each answered by the recipe that was best on the other folds.
Pictures of pairs are dealt to five blocks, and pairs are drawn within them, so that no picture of a held-out pair is in
a pair that was learnt from. The means are over three draws of pairs.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench import crops
from closedloop.image import accept, decode
from closedloop.models import classifier, ranker
from closedloop.models.encoder import EMBEDDED, Encoder, load
from closedloop.near_identical import groups_of

BLOCKS, PAIRS, DRAWS = 5, 2000, 3
CLASSES_TARGET, PAIRS_TARGETS = 0.68, {"Objects": 0.76, "Scenes": 0.80}


@dataclass(frozen=True)
class Row:
    """One line of the table; the measures lie in 0-1."""

    what: str
    reached: float
    target: float
    baselines: dict[str, float]
    notes: str = ""


def main() -> None:
    """Measure, print a line each, write JSON."""
    arguments = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("bench/results/quality.json"))
    given = arguments.parse_args()
    encoder = load(EMBEDDED)
    print("| what | reached | target | met | baselines | chosen |\n| --- | --- | --- | --- | --- | --- |")
    rows = []
    for row in measured(given.folder, encoder):
        rows.append(row)
        met = "yes" if row.reached >= row.target else "no"
        others = ", ".join(f"{name} {value:.3f}" for name, value in row.baselines.items())
        print(f"| {row.what} | {row.reached:.3f} | {row.target:.2f} | {met} | {others} | {row.notes} |", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def measured(folder: Path, encoder: Encoder) -> Iterator[Row]:
    """A row for each kind of answers that is there."""
    if (folder / "food101_10class").is_dir():
        yield labels(folder / "food101_10class", encoder)
    if (folder / "visual_complexity" / "scores.csv").is_file():
        yield from pairs(folder / "visual_complexity", encoder)
    for what, reached, target, baselines in crops.rows(folder, encoder):
        yield Row(what, reached, target, baselines)


def labels(folder: Path, encoder: Encoder) -> Row:
    """The accuracy of a classifier of photos in a folder a class."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = [(path, number) for number, name in enumerate(names) for path in sorted((folder / name).glob("*.jpg"))]
    vectors, _, phashes = read([path for path, _ in files], encoder)
    truth = np.array([number for _, number in files])
    fitted = classifier.fit(vectors, truth, groups_of(phashes), len(names))
    right = float((fitted.out_of_fold.argmax(axis=1) == truth).mean())
    commonest = float(np.bincount(truth).max() / len(truth))
    return Row(
        f"classifier, {len(truth)} photos of {len(names)} dishes: accuracy",
        right,
        CLASSES_TARGET,
        {"commonest class": commonest},
        f"{fitted.recipe}; mean confidence {fitted.out_of_fold.max(axis=1).mean():.3f}",
    )


def pairs(folder: Path, encoder: Encoder) -> Iterator[Row]:
    """The share of pairs of each group in which a ranker prefers the picture with the higher score."""
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    for group, target in PAIRS_TARGETS.items():
        of = [line for line in listed if line["group"] == group]
        vectors, textures, phashes = read([folder / line["image"] for line in of], encoder)
        scores, alike = np.array([float(line["score_0_100"]) for line in of]), groups_of(phashes)
        reached, plain, recipes, sure = [], [], [], []
        for draw in range(DRAWS):
            sets, chosen, blocks = drawn(scores, alike, np.random.default_rng(draw))
            fitted = ranker.fit(np.concatenate([vectors, textures], axis=1), sets, chosen, blocks)
            reached.append(_right(fitted.out_of_fold, chosen))
            sure.append(np.mean([chances.max() for chances in fitted.out_of_fold]))
            recipes.append(str(fitted.recipe))
            plain.append(_plain(vectors, sets, chosen, blocks))
        yield Row(
            f"ranker, {PAIRS:,} pairs of {len(of)} {group.lower()}: right",
            float(np.mean(reached)),
            target,
            {"by chance": 0.5, "linear Bradley-Terry on the embedding alone": float(np.mean(plain))},
            f"{', '.join(sorted(set(recipes)))}; mean confidence {np.mean(sure):.3f}",
        )


def drawn(
    scores: np.ndarray, alike: np.ndarray, chance: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Pairs of pictures of one block, which of the two has the higher score, and their blocks."""
    different = np.unique(alike)
    block_of = dict(zip(different.tolist(), (chance.permutation(len(different)) % BLOCKS).tolist(), strict=True))
    block = np.array([block_of[group] for group in alike.tolist()])
    one, other = np.triu_indices(len(scores), k=1)
    open_to = np.flatnonzero((block[one] == block[other]) & (scores[one] != scores[other]))
    taken = chance.choice(open_to, size=min(PAIRS, len(open_to)), replace=False)
    turned = chance.random(len(taken)) < 0.5
    first, second = np.where(turned, other[taken], one[taken]), np.where(turned, one[taken], other[taken])
    chosen = (scores[second] > scores[first]).astype(np.int64)
    return [np.array(pair) for pair in zip(first, second, strict=True)], chosen, block[first]


def read(paths: list[Path], encoder: Encoder) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Embeddings and textures of pictures as the product would have stored them, and their pHashes."""
    vectors, textures, phashes = [], [], []
    for path in paths:
        picture = accept(path.read_bytes())
        vector, texture = encoder.embed_with_texture([decode(picture.jpeg, encoder.size)])
        vectors.append(vector)
        textures.append(texture)
        phashes.append(picture.phash)
    return np.concatenate(vectors), np.concatenate(textures), phashes


def _plain(vectors: np.ndarray, sets: list[np.ndarray], chosen: np.ndarray, blocks: np.ndarray) -> float:
    """What one linear score of the embedding reaches with the first recipe, nothing chosen."""
    fitted = ranker.fit(vectors, sets, chosen, blocks, offered=ranker.RECIPES[:1])
    return _right(fitted.out_of_fold, chosen)


def _right(chances: list[np.ndarray], chosen: np.ndarray) -> float:
    return float(np.mean([said.argmax() == choice for said, choice in zip(chances, chosen, strict=True)]))


if __name__ == "__main__":
    main()
