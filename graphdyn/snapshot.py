"""Snapshot: what an instrument may look at, at one moment of training; shared work is done once.

Shapes: P trained parameters as one flat vector, in the order of ``groups``; m batches, k draws of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from graphdyn.estimate import Invalid
from graphdyn.groups import Groups
from graphdyn.isolate import isolated
from graphdyn.keys import Key
from graphdyn.problem import Problem, Trace
from graphdyn.symmetry import Symmetry, find_symmetry, mode_of

T = TypeVar("T")


class Probe(NamedTuple):
    """Gradients of m independent batches, k draws of neighbours each, at the present weights.

    Attributes:
        grads: (m, k, P) what the optimiser would see.
        exact: (m, P) of the same targets with exact neighbourhoods; ``None`` unless asked for.
        batches: The first draw of each.
    """

    grads: Tensor
    exact: Tensor | None
    batches: list[Any]


@dataclass
class Snapshot:
    """One moment: ``step`` optimiser steps are done.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs done.
        model: Do not write to it.
        optimizer: Do not write to it.
        groups: How parameters are cut.
        problem: What is trained; ``None`` if nobody said.
        key: Of the randomness of this moment.
        settings: The optimiser's options in force during the last step, by name of a group of ``groups``.
        before: (P,) weights before the last step; ``None`` at step 0, or where no instrument asked.
        handed: (P,) gradient as the last step was handed it; ``None``: read it where it lies.
        modified: Whether somebody (clipping, a loss scaler, a memory) wrote to gradients between
            backward pass and step; ``None``: not known.
        micro: Squared norms of the gradients of the micro-batches that make up the last step.
        counters: What else the loop counted, since its start: ``edges``, ``bytes``, ``targets``, ``seconds`` (without
            those of instruments).
        losses: (step, loss of its batch, no dimension) in the order of training, step k being the one that
            took k steps to k + 1. At least those since the last measurement of whoever looks; it skips older ones.
        scores: The latest value of what the loop logs, by name (``valid``).
        symmetry: What :meth:`find_symmetry` has found of the model; ``None``: not asked yet. Whoever makes
            snapshots hands it on from one to the next.
    """

    step: int
    epoch: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    groups: Groups
    problem: Problem | None
    key: Key
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    before: Tensor | None = None
    handed: Tensor | None = None
    modified: bool | None = None
    micro: Tensor | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[tuple[int, Tensor]] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    symmetry: Symmetry | None = None
    _made: dict[Any, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Tensor:
        """(P,) weights now, after the last step."""
        return self._once("weights", self.groups.weights)

    @property
    def grad(self) -> Tensor:
        """(P,) the gradient that the last step used; it belongs to the weights ``before``.

        Raises:
            Invalid: If there is none any more.
        """
        if self.handed is not None:
            return self.handed
        if all(p.grad is None for p in self.groups.parameters.values()):
            raise Invalid("no gradient is there at this moment; measure right after a step.")
        return self._once("grad", self.groups.grads)

    @property
    def update(self) -> Tensor:
        """(P,) ``weights - before``.

        Raises:
            Invalid: If there was no step yet, or nobody kept the weights before it.
        """
        before = self.before
        if before is None:
            raise Invalid(
                "the weights before the last step were not kept; measure right after a step that was due."
                if self.step
                else "no step was taken yet."
            )
        return self._once("update", lambda: self.weights - before)

    def given(self) -> Problem:
        """The problem.

        Raises:
            Invalid: If nobody said what is trained.
        """
        if self.problem is None:
            raise Invalid("it draws batches of its own; give the recorder problem=.")
        return self.problem

    def probe(self, m: int, k: int = 1, *, exact: bool = False) -> Probe:
        """Gradients of m new batches, see :class:`Probe`; a larger probe of this moment serves, too.

        Raises:
            Invalid: If the problem cannot draw neighbours anew, or does not know exact neighbourhoods.
        """
        made = self._made.setdefault("probe", [])
        for found in made:
            big = found.grads.shape[0] >= m and found.grads.shape[1] >= k
            if big and (found.exact is not None or not exact):
                return Probe(
                    found.grads[:m, :k],
                    None if found.exact is None else found.exact[:m],
                    found.batches[:m],
                )
        made.append(self._probe(m, k, exact))
        return made[-1]

    def full_grad(self) -> Tensor:
        """(P,) of all targets, exact; dropout masks are those of ``key``.

        Raises:
            Invalid: If the problem does not know all targets.
        """
        return self._once("full", self._full)

    def gradients(self, batch: Any, *, exact: bool = False, key: Key | None = None) -> Tensor:
        """(P,) of one batch: what the optimiser would see, or the derivative of the loss of an exact one.

        Args:
            batch: Of the problem.
            exact: Which of the two.
            key: Of what a model draws from global generators (``nn.Dropout``); by default this moment's, so
                that two calls draw alike.
        """
        problem = self.given()
        with isolated(self.model, self.key if key is None else key):
            take = problem.gradient if exact else problem.step_gradient
            return self.groups.flat(take(self.model, batch))

    def part_gradients(self, batch: Any) -> dict[str, Tensor]:
        """(P,) by name: derivatives of all parts of what a step on a batch may minimise."""
        with isolated(self.model, self.key):
            found = self.given().part_gradients(self.model, batch)
            return {name: self.groups.flat(own) for name, own in found.items()}

    def trace(self, on: str = "full", i: int = 0) -> Trace:
        """A forward pass, open for differentiation (``retain_graph=True``, for others may look too).

        Leave its parameters and buffers alone.

        Args:
            on: ``"full"``: all targets, exact; dropout masks are the same at every moment, so that two
                moments differ by their weights alone. ``"batch"``: a batch as training sees one.
                ``"exact"``: the same targets, exact neighbourhoods. ``"whole"``: the whole graph under
                the batch's dropout masks, its targets those of the batch; not kept, for it is large.
            i: Which batch, see :meth:`batch`.

        Raises:
            Invalid: If the problem does not offer it.
        """
        if on == "whole":
            return self._trace(on, i)
        return self._once(("trace", on, i), lambda: self._trace(on, i))

    def batch(self, i: int) -> Any:
        """Batch number i of this moment: in a :meth:`probe`, its first draw."""
        return self._once(("batch", i), lambda: self.given().draw(self.key.fold("probe", i)))

    def hvp(self, v: Tensor, on: str = "batch") -> Tensor:
        """(P,) the Hessian times v.

        Raises:
            Invalid: Always; curvature has its place here, and is not there yet.
        """
        raise Invalid(f"curvature ({on}, {v.numel()} numbers) is not measured by this version.")

    def find_symmetry(self) -> Symmetry:
        """What leaves the loss as it is; looked for once, and anew when norms or parameters are (un)frozen.

        Raises:
            Invalid: If nobody said what is trained, or the problem has no small data to look on.
        """
        if self.symmetry is None or self.symmetry.mode != mode_of(self.model):
            self.symmetry = find_symmetry(self.model, self.given().toy)
        return self.symmetry

    def isolated(self):
        """See :func:`graphdyn.isolate.isolated`."""
        return isolated(self.model, self.key)

    def _probe(self, m: int, k: int, exact: bool) -> Probe:
        problem, rows, truth, batches = self.given(), [], [], []
        for i in range(m):
            key = self.key.fold("probe", i)
            batch = self.batch(i)
            others = [problem.redraw(batch, key.fold("again", j)) for j in range(1, k)]
            rows += [self.gradients(b, key=key) for b in (batch, *others)]
            if exact:
                truth.append(self.gradients(problem.exact(batch), exact=True, key=key))
            batches.append(batch)
        grads = torch.stack(rows).view(m, k, -1)
        return Probe(grads, torch.stack(truth) if exact else None, batches)

    def _full(self) -> Tensor:
        pieces = self.given().full(self.key)
        return torch.stack([self.gradients(b, exact=True) for b in pieces]).sum(0)

    def _trace(self, on: str, i: int) -> Trace:
        problem = self.given()
        with self.isolated():
            if on == "full":
                pieces = [*problem.full(self.key.at(epoch=0, step=0))]
                if len(pieces) > 1:
                    raise Invalid(
                        "the graph does not fit at once; layers are seen of whole graphs."
                    )
                return problem.trace(self.model, pieces[0])
            batch = self.batch(i)
            if on == "batch":
                return problem.step_trace(self.model, batch)
            make = {"exact": problem.exact, "whole": problem.whole}[on]
            return problem.trace(self.model, make(batch))

    def _once(self, name: Any, make: Callable[[], T]) -> T:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]
