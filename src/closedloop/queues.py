"""Who is asked about which picture, why, and with what probability.

Every picture that enters a queue does so with a probability that is stored at that moment. Three queues take every
picture that gives a reason (probability 1, given the reason); `random_sample` draws, and stores the probability of
those that it did not draw, too. Of the sets of a selection project a random share is asked about, each set by its own
coin when it comes, and besides them those of which the ranker is least sure.
"""

import hashlib
import math
import random
from collections.abc import Sequence

RANDOM_SAMPLE = "random_sample"
LOW_CONFIDENCE = "low_confidence"
USER_FEEDBACK = "user_feedback"
USER_LABEL = "user_label"
CLASSIFICATION_QUEUES = (RANDOM_SAMPLE, LOW_CONFIDENCE, USER_FEEDBACK, USER_LABEL)
SELECTION, CROP = "selection", "crop"  # which picture of a set is best; which part of it to keep
SELECTION_QUEUES = (SELECTION, CROP)
BY_CHANCE, LEAST_SURE = "random", "least_sure"  # why a set is asked about


def is_low_confidence(confidence: float | None, threshold: float) -> bool:
    """Whether an answer is asked about: its confidence (0-1) is below the threshold, or no model answered at all."""
    return confidence is None or confidence < threshold


def sample_size(frame: int, share: float, at_least: int) -> int:
    """How many of `frame` pictures the daily sample draws: `share` of them, but `at_least` so many, or all."""
    return min(frame, max(at_least, math.ceil(share * frame)))


def draw(frame: Sequence[str], size: int, seed: int) -> tuple[frozenset[str], float]:
    """A simple random sample without replacement of `size` of the ids in `frame`.

    Returns the drawn ids and the inclusion probability of every picture of the frame, size / len(frame)
    (Cochran 1977, Sampling Techniques, ch. 2). The order of `frame` does not matter; the seed decides.
    """
    if not frame:
        return frozenset(), 0.0
    ids = sorted(set(frame))
    return frozenset(random.Random(seed).sample(ids, size)), size / len(ids)  # noqa: S311


def is_drawn(set_id: str, share: float) -> bool:
    """Whether a set belongs to the random share (0-1): Bernoulli sampling, each set by a coin of its own.

    The coin is a digest of the set's id, so that a set which comes again falls on the same side (Särndal, Swensson and
    Wretman 1992, Model Assisted Survey Sampling, ch. 3.2, on permanent random numbers). Its probability is `share`.
    """
    digest = hashlib.sha256(f"asked by chance {set_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
