"""Symmetries of a loss under rescaling of parameters, found by measurement, not assumed.

Euler: with r_p = <dL/dtheta_p, theta_p>, the loss is invariant under ``theta_p -> exp(s_p eps) theta_p`` if and
only if ``sum_p s_p r_p = 0`` at every theta and on every batch. So r is measured at random weights on small random
data, and the integer vectors s that all these measurements send to zero are the symmetries. Valid for any
architecture whose loss is differentiable; what rescales single heads or channels is found as far as whole tensors
show it. Derived here from Euler's theorem for homogeneous functions.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphdyn.estimate import Invalid
from graphdyn.isolate import isolated
from graphdyn.keys import Key
from graphdyn.nullspace import null_generators

Generator = Mapping[str, int]
MakeLoss = Callable[[Key], Callable[[nn.Module], Tensor]]

SILENT = 1e-10  # of the largest <|gradient| |weights|>: below, a parameter has no say in the loss
ACCEPTED = 1e-2  # largest violation of a symmetry, relative
CONFIRMATIONS = 3  # points at which a generator is tried
_EXACT = 1e-6  # by which the eps of norms is multiplied while structure is looked for


@dataclass(frozen=True)
class Symmetry:
    """What leaves the loss as it is: ``theta_p -> exp(s_p eps) theta_p`` for every generator s, at any eps.

    Attributes:
        invariant: Generators without negative entries: sets of parameters whose common scale the loss does
            not see, with integer coefficients by name of a parameter.
        rescaling: Generators of mixed signs: one part may grow as another shrinks.
        silent: Parameters whose gradient is zero whatever they are (a bias in front of a batch norm).
        residual: Largest relative violation of an accepted generator, measured on the loss.
        mode: What it was found for, see :func:`mode_of`; a model in another mode has other symmetries.
    """

    invariant: tuple[Generator, ...]
    rescaling: tuple[Generator, ...]
    silent: tuple[str, ...]
    residual: float
    mode: tuple[tuple[str, ...], ...] = ((), ())

    @property
    def scale_invariant(self) -> dict[str, tuple[str, ...]]:
        """Sets of parameters by their label, whose common scale, the same factor for all, the loss does not see."""
        return {label(g): tuple(g) for g in self.invariant if {*g.values()} == {1}}


def label(generator: Generator) -> str:
    """A name for a generator.

    Example:
        >>> label({"a.weight": 1, "a.bias": 1, "b.weight": -2})
        'a.weight + a.bias - 2 b.weight'
    """
    terms = [
        f"{'-' if c < 0 else '+'} {'' if abs(c) == 1 else f'{abs(c)} '}{n}"
        for n, c in generator.items()
    ]
    return " ".join(terms).removeprefix("+ ")


def mode_of(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Modules in evaluation within a model in training, and parameters that are not trained, by name.

    A model that is as a whole in evaluation is looked at as if in training.
    """
    still = tuple(n for n, m in model.named_modules() if not m.training) if model.training else ()
    return still, tuple(n for n, p in model.named_parameters() if not p.requires_grad)


def find_symmetry(model: nn.Module, make_loss: MakeLoss, *, key: Key = Key(0)) -> Symmetry:
    """The symmetries of a loss under rescaling of whole parameter tensors.

    Works on a float64 copy on CPU in the mode of the model (:func:`mode_of`), dropout modules off; functional
    dropout cannot be seen and keeps one mask a point, which has the same symmetries. While structure is looked
    for, ``eps`` of norms is all but 0; every generator found is then confirmed with the model's own ``eps``, by
    its Euler sum and by the loss at ``exp(+-0.3 s) theta``, at other weights and data. One derivative each at
    3 G + 8 points for G parameter tensors.

    Args:
        model: Left as it is.
        make_loss: From a key to a function of the copy; see :meth:`graphdyn.problem.Problem.toy`.
        key: Of the random weights and data.

    Returns:
        A basis of all generators, with the fewest parameters each; sets in ``invariant`` are disjoint wherever
        that is possible.

    Raises:
        Invalid: If the copy or its loss cannot be computed in float64 on CPU.
    """
    toy = _Toy(model, make_loss)
    products, sizes = toy.points(key)
    typical = np.sqrt(np.square(sizes).mean(0))
    heard = typical > SILENT * typical.max()
    found = null_generators(products[:, heard], typical[heard])
    names = [n for n, h in zip(toy.names, heard) if h]
    generators = [{n: int(c) for n, c in zip(names, s) if c} for s in found]
    violated = toy.violations(generators, key)
    kept = [g for g, v in zip(generators, violated) if v < ACCEPTED]
    return Symmetry(
        invariant=tuple(g for g in kept if min(g.values()) > 0),
        rescaling=tuple(g for g in kept if min(g.values()) < 0),
        silent=tuple(n for n, h in zip(toy.names, heard) if not h),
        residual=max((v for v in violated if v < ACCEPTED), default=0.0),
        mode=mode_of(model),
    )


class _Toy:
    """A copy of a model whose weights may be written, and its loss on random data."""

    def __init__(self, model: nn.Module, make_loss: MakeLoss):
        self.model, self.make_loss = _copy(model), make_loss
        self.own = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.names = [*self.own]

    def points(self, key: Key) -> tuple[np.ndarray, np.ndarray]:
        """(T, G) of <gradient, weights> and of |gradient| |weights|; the largest of each row is 1."""
        with _eps_times(self.model, _EXACT):
            keys = [key.fold("point", i) for i in range(3 * len(self.names) + 8)]
            made = [self._euler(self._at(k)) for k in keys]
        products, sizes = (np.stack(part) for part in zip(*made))
        usable = np.isfinite(sizes).all(1) & (sizes.max(1) > 0)
        if usable.sum() < len(self.names):
            raise Invalid(
                "its loss has no finite gradient at random weights; symmetries stay unknown."
            )
        products, sizes = products[usable], sizes[usable]
        return tuple(part / sizes.max(1, keepdims=True) for part in (products, sizes))

    def violations(self, generators: Sequence[Generator], key: Key) -> list[float]:
        """How far each generator is from leaving the loss as it is, relative, at the model's own eps."""
        worst = [0.0] * len(generators)
        for i in range(CONFIRMATIONS):
            at = key.fold("confirm", i)
            loss = self._at(at)
            products, sizes = self._euler(loss)
            before = float(loss().detach())
            for k, generator in enumerate(generators):
                moved = [self._moved(generator, eps, loss) for eps in (0.3, -0.3)]
                worst[k] = max(
                    worst[k],
                    _relative(generator, self.names, products, sizes),
                    *(abs(after / before - 1) for after in moved),
                )
        return worst

    def _at(self, key: Key) -> Callable[[], Tensor]:
        """The loss on the data of a key, at random weights that it goes to; equal masks at every call."""
        loss = self.make_loss(key)
        self._scatter(key)

        def value() -> Tensor:
            try:
                with isolated(self.model, key):
                    return loss(self.model)
            except RuntimeError as error:
                raise Invalid(
                    f"a float64 copy of the model cannot compute its loss on CPU: {error}"
                ) from None

        return value

    def _euler(self, loss: Callable[[], Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """(G,) of <gradient, weights> and of |gradient| |weights|."""
        own = [*self.own.values()]
        grads = torch.autograd.grad(loss(), own, allow_unused=True)
        pairs = [(torch.zeros_like(p) if g is None else g, p.detach()) for g, p in zip(grads, own)]
        products = torch.stack([(g * p).sum() for g, p in pairs])
        sizes = torch.stack([g.norm() * p.norm() for g, p in pairs])
        return products.numpy(), sizes.numpy()

    def _moved(self, generator: Generator, eps: float, loss: Callable[[], Tensor]) -> float:
        """The loss at ``exp(s eps) theta``; the weights are back afterwards."""
        self._flow(generator, eps)
        after = float(loss().detach())
        self._flow(generator, -eps)
        return after

    @torch.no_grad()
    def _scatter(self, key: Key) -> None:
        """Random weights of a size that keeps states alive; biases are not left at 0."""
        for i, p in enumerate(self.own.values()):
            size = math.sqrt(2 / p.shape[-1]) if p.ndim > 1 else 0.5
            p.copy_(
                size
                * torch.randn(p.shape, generator=key.fold("weights", i).generator(), dtype=p.dtype)
            )

    @torch.no_grad()
    def _flow(self, generator: Generator, eps: float) -> None:
        for name, s in generator.items():
            self.own[name].mul_(math.exp(s * eps))


def _relative(
    generator: Generator, names: list[str], products: np.ndarray, sizes: np.ndarray
) -> float:
    """|sum_p s_p r_p| over what it could be, were nothing to cancel."""
    places, s = [names.index(n) for n in generator], np.array([*generator.values()])
    most = np.abs(s) @ sizes[places]
    return float(abs(s @ products[places]) / most) if most else 0.0


def _copy(model: nn.Module) -> nn.Module:
    """In float64 on CPU, without hooks and other ranks, in training unless a part of the model is not."""
    memo: dict[int, Any] = {}
    for m in model.modules():
        memo |= {id(v): OrderedDict() for k, v in vars(m).items() if k.endswith("_hooks")}
        world = getattr(m, "world", None)  # of a norm that takes statistics over ranks
        memo |= {} if world is None else {id(world): None}
    try:
        twin = copy.deepcopy(model, memo)
    except RuntimeError as error:
        raise Invalid(
            f"the model cannot be copied, so its symmetries stay unknown: {error}"
        ) from None
    twin.cpu().double()
    if not model.training:
        twin.train()
    for m in twin.modules():
        if isinstance(m, nn.modules.dropout._DropoutNd):
            m.p = 0.0
    return twin


@contextmanager
def _eps_times(model: nn.Module, factor: float) -> Iterator[None]:
    """Inside, the small constants in the denominators of norms are smaller by a factor."""
    modules: Iterator[Any] = model.modules()
    norms = [m for m in modules if isinstance(getattr(m, "eps", None), float)]
    kept = [m.eps for m in norms]
    for m, eps in zip(norms, kept):
        m.eps = eps * factor
    try:
        yield
    finally:
        for m, eps in zip(norms, kept):
            m.eps = eps
