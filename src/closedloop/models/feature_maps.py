"""What a model's inner maps say of a picture: a vector for each cell of a grid, or the texture of the whole."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def grid(maps: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """Maps (n, c_i, h_i, w_i) -> (n, side, side, sum of c_i) float32; in each cell each map's part has length 1.

    Maps that are finer or not square are averaged to `side` cells.
    """
    parts = []
    for map_ in maps:
        pooled = map_.float() if map_.shape[2:] == (side, side) else functional.adaptive_avg_pool2d(map_.float(), side)
        parts.append(functional.normalize(pooled, dim=1))
    return torch.cat(parts, dim=1).permute(0, 2, 3, 1).contiguous()


def texture(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps (n, c_i, h_i, w_i) -> (n, twice the sum of c_i) float32: how strong each channel is and how much it varies.

    The means over the cells beside their standard deviations, each map's means and deviations of length 1. They hold
    what the last layer has forgotten: how fine, how full, how sharp (cf. the style of Gatys, Ecker and Bethge 2016).
    """
    parts = []
    for map_ in maps:
        cells = map_.float().flatten(2)
        parts += [functional.normalize(cells.mean(dim=2)), functional.normalize(cells.std(dim=2, correction=0))]
    return torch.cat(parts, dim=1)
