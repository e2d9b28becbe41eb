"""How well do crop proposals fit what a person drew? Rows for `bench/quality.py`, from photos with one box each."""

import json
from pathlib import Path

import numpy as np

from closedloop.image import accept, decode
from closedloop.models import cropper
from closedloop.models.crop_head import iou
from closedloop.models.encoder import EMBEDDED, Encoder, load
from closedloop.models.saliency import saliency
from closedloop.near_identical import groups_of

PLACE = "fruit_crops"
TARGET = 0.74  # mean overlap (IoU)

Row = tuple[str, float, float, dict[str, float]]  # name, reached, target, baselines


def rows(data: Path, encoder: Encoder | None = None) -> list[Row]:
    """The mean overlap of out-of-fold proposals with the boxes of DATA/fruit_crops; no row where that is absent."""
    folder = data / PLACE
    if not (folder / "boxes.json").is_file():
        return []
    seen, groups = read(folder, encoder or load(EMBEDDED))
    fitted = cropper.fit(seen.grids, seen.aspects, seen.saliencies, seen.boxes, groups)
    reached = float(iou(fitted.out_of_fold, seen.boxes).mean())
    baselines = {name: float(said.mean()) for name, said in cropper.baselines(seen.boxes, fitted.folds).items()}
    return [("fruit crops, mean overlap", reached, TARGET, baselines)]


def read(folder: Path, encoder: Encoder) -> tuple[cropper.Crops, np.ndarray]:
    """What there is to learn from photos and `boxes.json`, as the product would have stored them; and their groups."""
    drawn = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    grids, saliencies, aspects, phashes = [], [], [], []
    for one in drawn:
        picture = accept((folder / "images" / one["image"]).read_bytes())
        image = decode(picture.jpeg, encoder.grid_size)
        grids.append(encoder.grid([image]).astype(np.float16))
        saliencies.append(saliency(image, encoder.grid_side))
        aspects.append(picture.width / picture.height)
        phashes.append(picture.phash)
    boxes = np.array([one["box_xyxy_normalised"] for one in drawn])
    return cropper.Crops(np.concatenate(grids), np.array(aspects), np.stack(saliencies), boxes), groups_of(phashes)
