"""What is to be known of an encoder without its weights."""

from dataclasses import asdict, dataclass
from typing import Any

from closedloop.models.preparation import Preparation
from closedloop.project import CLASSIFIER, CROPPER, RANKER

EMBEDDED = "embedded"  # the name of the encoder that needs no download


@dataclass(frozen=True)
class Spec:
    """An encoder's name and widths. `digest` stands for its weights and for how pictures are prepared for them."""

    name: str
    digest: str
    dimension: int
    texture_width: int
    grid_side: int  # cells
    grid_channels: int
    prepare: Preparation
    prepare_grid: Preparation
    least_cosine: float  # with the reference, that a tower in a coarser arithmetic must reach
    knows_words: bool = False
    word_scale: float = 0.0  # from cosine to logit, as words and pictures were trained

    @property
    def inputs(self) -> dict[str, int]:
        """How wide the features are that each head takes: the classifier sees the vector, the ranker its texture too,
        the cropper the cells of the grid.
        """
        return {
            CLASSIFIER: self.dimension,
            RANKER: self.dimension + self.texture_width,
            CROPPER: self.grid_channels,
        }

    def as_json(self) -> dict[str, Any]:
        """For a file; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Spec":
        """Raises TypeError or KeyError for what is none."""
        preparations = {key: Preparation(**said[key]) for key in ("prepare", "prepare_grid")}
        return cls(**{**said, **preparations})
