"""Plans compared to the bit: structure, weights, seeds."""

import torch


def same(first, second):
    """Whether two plans agree in every tensor."""
    pairs = [(getattr(first, n), getattr(second, n)) for n in ("rows", "seeds", "seed_weight")]
    for a, b in zip(first.blocks, second.blocks, strict=True):
        pairs += zip(a.tensors(), b.tensors(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
