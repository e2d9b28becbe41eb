"""Towers that torch computes: on the processor the reference that others are compared with; or on a GPU."""

import numpy as np
import torch

from closedloop.models.backends import CPU, CUDA, MPS, TORCH
from closedloop.models.nets import Net


class TorchTower:
    """A net on one device; on GPUs in bfloat16 where that is asked for, channels innermost."""

    lanes = 1

    def __init__(self, net: Net, device: str, fast: bool = False) -> None:
        self.name = f"{TORCH}-{device}"
        self.net = net
        # A GPU is the faster the more it is given; on a processor many are no faster than one after the other.
        self.shapes = (1,) if device == CPU else (1, 2, 4, 8, 16, 32, 64)
        self._device = torch.device(device)
        net.to(self._device)
        if fast and device != CPU:
            net.to(torch.bfloat16)
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def look(self, pixels: np.ndarray, lane: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """See `Tower`."""
        with torch.inference_mode():
            vectors, textures = self.net.look(self._there(pixels))
            return vectors.cpu().numpy(), textures.cpu().numpy()

    def grid(self, pixels: np.ndarray, lane: bool = False) -> np.ndarray:
        """See `Tower`."""
        with torch.inference_mode():
            return self.net.grid(self._there(pixels)).cpu().numpy()

    def _there(self, pixels: np.ndarray) -> torch.Tensor:
        here = torch.from_numpy(pixels)
        if self._device.type == CUDA:  # from memory that the system does not move, the copy need not be waited for
            return here.pin_memory().to(self._device, non_blocking=True)
        return here.to(self._device)


def best_device() -> str:
    """An NVIDIA GPU where this process is given one (docker-compose.gpu.yaml), else the processor."""
    return CUDA if torch.cuda.is_available() else CPU


def gpus() -> list[str]:
    """The GPUs' devices that torch finds here."""
    return [CUDA] * torch.cuda.is_available() + [MPS] * torch.backends.mps.is_available()
