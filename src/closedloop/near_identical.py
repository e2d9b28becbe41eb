"""Which pictures are versions of one another: they never stand on both sides of a split."""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 4  # of 64: pictures whose pHash differs in at most so many are versions of one another


def groups_of(phashes: list[str], bits: int = BITS) -> np.ndarray:
    """A group number for each picture, shape (n,): those whose 64-bit pHash differs in at most `bits` are together.

    Groups are the connected components, so a chain of near-identical pictures is one group; its number is the place of
    its first picture. Of two hashes that differ in so few bits, one of `bits` + 1 bands is the same (Manku, Jain and
    Das Sarma 2007), so only those that share a band are compared: time grows with n, not with its square, unless most
    pictures look alike.
    """
    values, of = np.unique(np.array([int(text, 16) for text in phashes], dtype=np.uint64), return_inverse=True)
    ends = np.linspace(0, 64, bits + 2).astype(int)
    pairs = [pair for low, high in itertools.pairwise(ends) for pair in _in_band(values, int(low), int(high), bits)]
    one, other = np.hstack(pairs) if pairs else np.empty((2, 0), dtype=int)
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(values), len(values)))
    _, component = connected_components(graph, directed=False)
    _, first, number = np.unique(component[of], return_index=True, return_inverse=True)
    return first[number].astype(np.int64)


def _in_band(values: np.ndarray, low: int, high: int, bits: int) -> Iterator[np.ndarray]:
    """Pairs (2, m) of places of different hashes that agree in the bits `low` to `high` and nearly in the others."""
    band = (values >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
    order = np.argsort(band, kind="stable")
    band, values = band[order], values[order]
    apart = 1
    while apart < len(values) and (same := np.flatnonzero(band[apart:] == band[:-apart])).size:
        near = same[np.bitwise_count(values[same] ^ values[same + apart]) <= bits]
        yield np.stack([order[near], order[near + apart]])
        apart += 1
