"""Randomness as a pure function of a key: ``u = hash(key, id)``, the same integers everywhere.

Nothing here reads or seeds a global generator. A key is a path (seed, epoch, step, then anything
folded in); its 64 bits are a hash of that path, and the number drawn for ``id`` is a hash of both.
Worker count, thread count, prefetch and device therefore never change a draw, and a checkpoint
stores one key.

The mixer is the 64-bit finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators", variant 13 of Stafford), applied twice. NumPy, torch and Numba
versions agree bit for bit; ``tests/test_keys.py`` steps them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the SplitMix64 increment
MIX1 = 0xBF58476D1CE4E5B9
MIX2 = 0x94D049BB133111EB
MASK = (1 << 64) - 1


def mix(z: int) -> int:
    """The SplitMix64 finaliser on a Python integer: a bijection of 64-bit words."""
    z = ((z ^ (z >> 30)) * MIX1) & MASK
    z = ((z ^ (z >> 27)) * MIX2) & MASK
    return z ^ (z >> 31)


@dataclass(frozen=True)
class Key:
    """Where a random draw happens. Immutable, hashable, a few bytes.

    Attributes:
        seed: The run's seed.
        epoch: Epoch, from 0.
        step: Step within the run, from 0.
        path: What was folded in: integers and words.

    Example:
        >>> key = Key(7).at(epoch=2).fold("dropout", 0)
        >>> key.bits == Key(7, epoch=2, path=("dropout", 0)).bits
        True
        >>> key.uniform(torch.arange(3)).shape
        torch.Size([3])
    """

    seed: int
    epoch: int = 0
    step: int = 0
    path: tuple[int | str, ...] = ()

    def at(self, *, epoch: int | None = None, step: int | None = None) -> Key:
        """The same path at another epoch or step."""
        return replace(
            self,
            epoch=self.epoch if epoch is None else epoch,
            step=self.step if step is None else step,
        )

    def fold(self, *parts: int | str) -> Key:
        """A new key, independent of this one, for a named purpose."""
        return replace(self, path=self.path + parts)

    @cached_property
    def bits(self) -> int:
        """The key as an unsigned 64-bit integer."""
        state = 0
        for part in (self.seed, self.epoch, self.step, *self.path):
            word = _word(part) if isinstance(part, str) else part & MASK
            state = mix((mix((word + GOLDEN) & MASK) ^ state) + GOLDEN & MASK)
        return state

    def hash(self, ids: Tensor) -> Tensor:
        """64 random bits for each id.

        Args:
            ids: Any shape, integers; on any device.

        Returns:
            int64 tensor of the same shape; read its bits as unsigned.
        """
        return hash_torch(ids, self.bits)

    def uniform(self, ids: Tensor) -> Tensor:
        """float64 in [0, 1) with 53 random bits for each id."""
        return _shift(self.hash(ids), 11).double() * 2.0**-53

    def integers(self, ids: Tensor, bound: int | Tensor) -> Tensor:
        """Uniform integers in [0, bound) by 64-bit multiply-high with Lemire's rejection: no bias.

        Args:
            ids: Integers, any shape.
            bound: Positive, below 2^32; scalar or broadcastable to ``ids``.

        Returns:
            int64 tensor of the shape of ``ids``.
        """
        bound = torch.as_tensor(bound, dtype=torch.int64, device=ids.device).expand(ids.shape)
        # With 32 random bits and 64-bit products the low word decides rejection (Lemire 2019).
        threshold = torch.remainder((1 << 32) - bound, bound)
        out = torch.empty(ids.shape, dtype=torch.int64, device=ids.device)
        pending = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
        attempt = 0
        while bool(pending.any()):
            product = _shift(self.fold("try", attempt).hash(ids), 32) * bound
            accept = pending & ((product & 0xFFFFFFFF) >= threshold)
            out[accept] = _shift(product, 32)[accept]
            pending &= ~accept
            attempt += 1
        return out

    def permutation(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """A uniform permutation of 0..n-1: the order of the hashes of the ids."""
        return torch.argsort(self.hash(torch.arange(n, device=device)), stable=True)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch generator of its own, for code that takes ``generator=`` (initialisation)."""
        return torch.Generator(device=device).manual_seed(self.bits >> 1)

    def numpy(self) -> np.random.Generator:
        """A NumPy generator of its own, for code that needs exotic distributions."""
        return np.random.Generator(np.random.Philox(key=self.bits))


def hash_numpy(ids: np.ndarray, bits: int) -> np.ndarray:
    """The reference: uint64 hash of integer ids under the 64 key bits."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(GOLDEN)
        z = mix_numpy(z) ^ np.uint64(bits)
        return mix_numpy(z + np.uint64(GOLDEN))


def hash_torch(ids: Tensor, bits: int) -> Tensor:
    """As :func:`hash_numpy` on any device; int64 holds the same bits."""
    z = mix_torch(ids.long() + signed(GOLDEN)) ^ signed(bits)
    return mix_torch(z + signed(GOLDEN))


def mix_numpy(z: np.ndarray) -> np.ndarray:
    """:func:`mix` on uint64 arrays."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX2)
    return z ^ (z >> np.uint64(31))


def mix_torch(z: Tensor) -> Tensor:
    """:func:`mix` on int64 tensors that hold the same bits, on any device."""
    z = (z ^ _shift(z, 30)) * signed(MIX1)
    z = (z ^ _shift(z, 27)) * signed(MIX2)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift: torch's own is arithmetic on int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def signed(word: int) -> int:
    """The int64 that holds the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _word(text: str) -> int:
    """64-bit FNV-1a of a word, so that names can be folded into keys."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = ((state ^ byte) * 0x100000001B3) & MASK
    return state
