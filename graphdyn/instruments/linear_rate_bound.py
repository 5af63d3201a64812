"""LinearRateBound: the rate that theory guarantees a linear graph network, beside the rate it has.

Valid for linear networks under the squared error alone: :class:`graphdyn.GCN` with ``activation="none"``, a linear
head, no norm, bias or dropout, skip ``none`` or ``dense-cat``, and the loss k |f - Y|_F^2 of one-hot labels Y over all
targets. With the trunk's product Bbar_l = B_l ... B_1, the features X under the shift S and I the targets,

    -dL/dt >= sum_l |dL/dW_l|_F^2 >= 4 k lambda sigma^2 (L - L*)

(Xu, Zhang, Jegelka & Kawaguchi 2021, theorems 1 and 2, for gradient flow): sigma^2 is the smallest non-zero squared
singular value of X(S^H)_I, or of all X(S^l)_I under each other with dense skips, and lambda the smallest eigenvalue of
Bbar_l^T Bbar_l on the span of X(S^l)_I, which is all that the proof needs. A trunk narrower than that span has
lambda = 0 and no guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.pl_constant import full_loss
from graphdyn.models import GCN
from graphdyn.models.propagate import aggregate
from graphdyn.node_problem import NodeProblem
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot
from graphdyn.sparse import Sparse

LARGEST = 4096  # targets or features that are decomposed densely
ZERO = 1e-12  # singular values below this share of the largest
LEFT = 1e-6  # share of the loss that must be above the optimum, or rounding is all there is
SQUARED = 1e-4  # relative deviation from the squared error that rounding may cause


class Scales(NamedTuple):
    """What the graph alone decides.

    Attributes:
        spans: (F, r_l) orthonormal basis of the columns of X(S^l)_I, for the l that the head reads.
        sigma2: sigma^2.
        best: |Y (1 - P)|_F^2, the squared error that no weights can mend.
        y: (C, n) one-hot labels.
    """

    spans: list[Tensor]
    sigma2: Tensor
    best: Tensor
    y: Tensor


class LinearRateBound(Instrument):
    """The rate guaranteed, and the rate there is.

    ============  ==========  =====================================================================
    reading       unit        what it is
    ============  ==========  =====================================================================
    ``rate``      1/time      |grad L|^2 / (L - L*), time being learning rate times steps; what gradient flow
                              has now
    ``bound``     1/time      4 k lambda sigma^2
    ``ratio``     1           ``rate`` over ``bound``: at least 1; infinite where lambda is 0
    ``lambda``    1           smallest eigenvalue of Bbar_l^T Bbar_l now, least over the l that the head reads
    ``smallest``  1           the smallest ``lambda`` that was measured
    ``sigma2``    1           sigma^2, a property of graph, features and targets
    ``heads``     1           share of |grad L|^2 that is the head's: the term that the bound keeps
    ============  ==========  =====================================================================

    Standard error 0: everything is exact.

    Args:
        factor: k; by default one over the number of targets, which makes the loss a mean over targets.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=200)
    full = 1.0

    def __init__(self, *, factor: float | None = None, **options: Any):
        super().__init__(**options)
        self.factor = factor
        self._scales: Scales | None = None
        self._smallest: Tensor | None = None

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        model, problem = s.model, s.given()
        if not (isinstance(model, GCN) and isinstance(problem, NodeProblem)):
            raise Invalid(
                "the theorem is about linear graph networks; give a graphdyn GCN on nodes."
            )
        o = model.options
        wanted = {"activation": "none", "norm": "none", "bias": False, "order": "post"}
        dropouts = ("dropout", "input_dropout", "edge_dropout")
        wrong = [n for n, v in wanted.items() if getattr(o, n) != v]
        wrong += [n for n in dropouts if getattr(o, n) > 0]
        wrong += ["skip"] if o.skip not in ("none", "dense-cat") else []
        wrong += ["head"] if not o.linear_head else []
        if wrong:
            raise Invalid(
                f"the theorem is about linear networks with a linear head; change {', '.join(wrong)}."
            )

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the loss is not the squared error, or nothing is left to be learnt.
        """
        scales = self._scales = self._scales or _scales(s)
        factor = 1 / s.given().num_targets if self.factor is None else self.factor
        loss, squared = full_loss(s), _squared_error(s, scales.y)
        if (loss - factor * squared).abs() > SQUARED * loss:
            raise Invalid(
                f"the loss is {float(loss):.4g}, but {factor:.4g} |f - Y|^2 is {float(factor * squared):.4g}; the "
                "theorem is about squared errors (factor=... says which)."
            )
        gap = factor * (squared - scales.best)
        if not gap > LEFT * loss:
            raise Invalid("the loss is at its optimum, so that it has no rate.")
        parts = s.groups.unflat(s.full_grad().double().square())
        whole = torch.stack([p.sum() for p in parts.values()]).sum()
        smallest = least_eigenvalue(_trunk(s.model), scales.spans)
        self._smallest = smallest if self._smallest is None else self._smallest.minimum(smallest)
        rate, bound = whole / gap, 4 * factor * smallest * scales.sigma2
        found = {"rate": rate, "bound": bound, "ratio": rate / bound, "lambda": smallest}
        found |= {"smallest": self._smallest, "sigma2": scales.sigma2}
        found["heads"] = parts["head.weight"].sum() / whole
        return {name: Estimate(value, 0.0) for name, value in found.items()}

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {"smallest": self._smallest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._smallest = state["smallest"]


def smallest_scale(rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """sigma^2 of (F, n) rows, and the squared error of the (C, n) labels that no W on these rows can mend."""
    _, s, v = torch.linalg.svd(torch.linalg.qr(rows).R, full_matrices=False)
    kept = s > ZERO * s[0]
    rest = y - y @ v[kept].T @ v[kept]
    return s[kept][-1].square(), rest.square().sum()


def span(columns: Tensor) -> Tensor:
    """(F, r) orthonormal basis of the columns of an (F, n) matrix."""
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    return u[:, s > ZERO * s[0]]


def least_eigenvalue(trunk: list[Tensor], spans: list[Tensor]) -> Tensor:
    """Least over l of the smallest eigenvalue of Bbar_l^T Bbar_l on span l; spans are those of the last layers.

    Args:
        trunk: B_1, ..., B_H.
        spans: One for each of the last layers that the head reads.
    """
    found, first = [], len(trunk) - len(spans)
    for depth, basis in enumerate(spans, first + 1):
        product = basis
        for b in trunk[:depth]:
            product = b @ product
        values = torch.linalg.svdvals(product)
        narrow = product.shape[0] < product.shape[1]
        found.append(values.new_zeros(()) if narrow else values[-1].square())
    return torch.stack(found).min()


def _trunk(model: Any) -> list[Tensor]:
    return [conv.lin.weight.detach().double() for conv in model.convs]


def _squared_error(s: Snapshot, y: Tensor) -> Tensor:
    batch = next(s.given().full(s.key))
    with s.isolated(), torch.no_grad():
        logits = s.model(batch, hidden=False).logits.index_select(0, batch.rows)
    return (logits.double().T - y).square().sum()


def _scales(s: Snapshot) -> Scales:
    """Of the graph, in float64."""
    pieces = [*s.given().full(s.key)]
    batch, depth = pieces[0], len(s.model.convs)  # type: ignore[arg-type]
    x = (batch.x.to_dense() if isinstance(batch.x, Sparse) else batch.x).double()
    if len(pieces) > 1 or min(x.shape[1], batch.rows.numel()) > LARGEST:
        raise Invalid(
            f"more than {LARGEST} targets or a graph in pieces; this is for graphs that are decomposed whole."
        )
    columns = []
    for layer in range(depth):
        x = aggregate(batch.block(layer), x)
        columns.append(x.index_select(0, batch.rows).T)
    used = columns if s.model.options.dense else columns[-1:]  # type: ignore[union-attr]
    y = F.one_hot(batch.y, int(s.model.head.weight.shape[0])).double().T  # type: ignore[union-attr]
    sigma2, best = smallest_scale(torch.cat(used), y)
    return Scales([span(z) for z in used], sigma2, best, y)
