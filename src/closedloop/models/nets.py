"""What the models of encoders have in common: a torch module that says two things of a batch of pixels."""

from abc import ABC, abstractmethod

import torch


class Net(torch.nn.Module, ABC):
    """A picture tower's layers. Both ways in take uint8 (n, side, side, 3) and give float32."""

    @abstractmethod
    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures -> their vectors (n, dimension), each row of length 1, and textures (n, texture_width): one pass."""

    @abstractmethod
    def grid(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures -> what is where in them, (n, side, side, channels)."""

    @property
    def dtype(self) -> torch.dtype:
        """What its layers compute in."""
        return next(self.parameters()).dtype


def unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length 1, float32."""
    return torch.nn.functional.normalize(features.float(), dim=-1)
