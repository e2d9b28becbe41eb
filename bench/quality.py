"""How good are the heads on real answers? `python -m bench.quality FOLDER` (ten minutes; embedded encoder).

FOLDER holds `food101_10class/<class>/*.jpg` (labels), `visual_complexity/scores.csv` (a score of each picture of two
groups: of a pair in a group, the one with the higher score is the chosen one) and `fruit_crops/boxes.json` (a box on
each picture); what is missing is left out. Each head is cross-fitted in five folds of whole groups: near-identical
pictures together, and, of pairs, no picture of a held-out pair is in a pair that was learnt from. In every fold the head
chooses its recipe by its own cross-validation, within what it learns from, so nothing that is held out is looked at.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from closedloop import near_identical
from closedloop.image import accept, phash
from closedloop.models import classifier, cropper, cross_fitting, ranker
from closedloop.models.crop_head import iou
from closedloop.models.encoder import BATCH, EMBEDDED, Encoder, load
from closedloop.models.saliency import saliency

SEED, FOLDS, PAIRS = 5, 5, 2000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measure: str
    reached: float
    target: float
    baselines: dict[str, float]
    answers: int
    recipes: list[str]  # that the folds chose
