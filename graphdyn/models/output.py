"""Output: what a model says about a batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Logits and hidden states.

    Attributes:
        logits: (D, C), one row for each target of the last block.
        hidden: One (D_k, F) tensor a hop: what the next norm or activation reads. The last one may
            be the logits themselves. Empty for models without message passing.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
