"""Answers without training: the class names themselves, where the encoder knows words (Radford et al. 2021)."""

import numpy as np

from closedloop.models.encoder import Encoder
from closedloop.models.heads import Classifier
from closedloop.project import Project

_PREFIX = "zero-shot-"
TEMPLATES = ("a photo of {}.", "a close-up photo of {}.", "a photo of {}, in good light.")


def head(encoder: Encoder, project: Project) -> Classifier:
    """A head whose weights are the classes' words: for each class the mean of its prompts' vectors, of length 1.

    The manifest's `prompts` replace the templates for the classes that they name.
    """
    prompts = [project.prompts.get(name) or [of.format(name.lower()) for of in TEMPLATES] for name in project.classes]
    # All at once: where words are read by another process, each asking costs its start.
    vectors = iter(encoder.embed_words([prompt for of in prompts for prompt in of]))
    rows = np.stack([np.mean([next(vectors) for _ in of], axis=0) for of in prompts])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weight = (encoder.word_scale * rows).astype(np.float32)
    return Classifier("linear", {"weight": weight, "bias": np.zeros(len(rows), np.float32)})


def release_name(encoder: Encoder) -> str:
    """What answers by words name as their release."""
    return f"{_PREFIX}{encoder.digest[:12]}"


def is_release(name: str) -> bool:
    """Whether words answered under this name, not a trained head."""
    return name.startswith(_PREFIX)
