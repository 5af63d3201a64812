"""Autocast by the name of a precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast(
    device: torch.device, precision: str, *, cache: bool = True
) -> AbstractContextManager[Any]:
    """The autocast context of a precision; nothing for ``float32``.

    Args:
        device: Where.
        precision: ``"float32"`` or ``"bfloat16"``.
        cache: Keep weights that were cast, for the next use; not for passes without gradients, whose casts
            have none.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=cache)
