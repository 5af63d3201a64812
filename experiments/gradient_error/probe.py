"""How wrong a sampled gradient is at frozen weights, and which part of the error is whose fault.

With g~ the gradient that a step of training would use, g the exact gradient of the same seeds under the
same weights, and f the full batch:

=========  =====================================  ==================================================
total      E|g~ - grad f|^2                       what a step is wrong by
bias       |E g~ - grad f|^2                      what no number of steps averages away
variance   total - bias                           what averages away
seeds      E|g - grad f|^2                        the choice of seeds (G in Cong et al. 2020)
embedding  E|g~ - g|^2                            sampled or stale embeddings (V in Cong et al. 2020)
cross      2 E<g - grad f, g~ - g>                total - seeds - embedding
=========  =====================================  ==================================================

All have standard errors; |grad f|^2 is reported beside them. Shapes: R draws, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from graphdyn import Graph, Key, full_batch, node_loss
from graphdyn.batch import Batch, Plan
from graphdyn.estimate import Estimate, Number
from graphdyn.gradient import Loss, gradient
from graphdyn.loader import gather
from graphdyn.memories import Memory
from graphdyn.models.output import Output
from graphdyn.samplers import Neighbor, Plans, Seeds
from graphdyn.statistics import inner, mean_of, squared_mean, with_others
from graphdyn.step import update


class Looking(Memory):
    """A memory in training, but nothing is pushed."""

    def __init__(self, memory: Memory):
        self.memory, self.hidden = memory, memory.hidden

    def pull(self, batch: Batch) -> Batch:
        return self.memory.pull(batch)

    def watch(self, output: Output) -> None:
        self.memory.watch(output)

    def correct(self, batch: Batch) -> None:
        self.memory.correct(batch)


class Untouched:
    """Inside, gradients may be taken as in training; afterwards training finds everything as it was."""

    def __init__(self, model: Any, memory: Memory):
        self.model, self.memory = model, memory

    def __enter__(self) -> Untouched:
        self.grads = [(p, p.grad) for p in self.model.parameters()]
        self.buffers = [(b, b.clone()) for b in self.model.buffers()]
        self.mode = self.model.training
        self.state = {n: t.clone() for n, t in self.memory.state().items()}
        self._see()
        return self

    def __exit__(self, *error: object) -> None:
        self.memory.report()  # empties counts that are no state; the next line brings back the others
        self.memory.restore(self.state)
        for parameter, grad in self.grads:
            parameter.grad = grad
        for buffer, kept in self.buffers:
            buffer.copy_(kept)
        self.model.train(self.mode)

    def gradient(self, batch: Batch) -> Tensor:
        """(P,) what the optimiser would get: a step of training at rate 0, without a push."""
        still = torch.optim.SGD(self.model.parameters(), lr=0.0)
        for parameter in self.model.parameters():
            parameter.grad = None
        update(self.model, batch, still, memory=Looking(self.memory), hidden=False)
        self._restore()
        return torch.cat([p.grad.flatten() for p in self.model.parameters()])

    def _see(self) -> None:
        # Version counters tell whether a table of gigabytes was written, without reading it.
        self.seen = {n: (t, t._version) for n, t in self.memory.state().items()}

    def _restore(self) -> None:
        now = self.memory.state()
        if any(n not in self.seen or t is not self.seen[n][0] for n, t in now.items()):
            self.memory.restore(self.state)
        else:
            for name, (tensor, version) in self.seen.items():
                if tensor._version != version:
                    tensor.copy_(self.state[name])
        self._see()


class Truth:
    """Everything exact about a model at its present weights; make a new one when they have changed.

    Args:
        model: Without dropout and norms over rows.
        graph: Its graph.
    """

    def __init__(self, model: Any, graph: Graph):
        self.model, self.graph = model, graph
        self.loss = 0.0
        self.gradient = self._flat(full_batch(graph, model.propagation), self._noted)
        self.size = float(self.gradient.double().square().sum())
        self._exact: Any = Neighbor(fanouts=(-1,), batch_size=1).prepare(
            graph, model.propagation, model.num_hops
        )
        self._known: dict[bytes, Tensor] = {}

    def of(self, plan: Plan) -> Tensor:
        """(P,) the exact gradient of a plan's seeds, with their weights; several methods share seeds."""
        name = plan.seeds.numpy().tobytes() + plan.seed_weight.numpy().tobytes()
        if name not in self._known:
            seeds = Seeds(plan.seeds, plan.seed_weight, torch.ones_like(plan.seed_weight))
            self._known[name] = self._flat(self.gather_plan(self._exact.plan_for(seeds, plan.key)))
        return self._known[name]

    def gather_plan(self, plan: Plan) -> Batch:
        """The plan with its features and labels."""
        assert self.graph.x is not None
        assert self.graph.y is not None
        return gather(plan, self.graph.x, self.graph.y)

    def _flat(self, batch: Batch, loss: Loss = node_loss) -> Tensor:
        found = gradient(self.model, batch, loss=loss)
        return torch.cat([g.flatten() for g in found.values()])

    def _noted(self, logits: Tensor, batch: Batch) -> Tensor:
        value = node_loss(logits, batch)
        self.loss = float(value.detach())
        return value


def independent(plans: Plans, key: Key, draws: int) -> Iterator[Plan]:
    """Plans of ever new runs, each at a random step of its first epoch."""
    first = torch.zeros(1, dtype=torch.int64)
    for r in range(draws):
        run = key.fold("probe", r)
        yield plans.plan(run.at(step=int(run.fold("step").integers(first, plans.num_batches))))


def probe(
    truth: Truth, plans: Plans, memory: Memory, key: Key, *, draws: int, exact: int
) -> dict[str, Estimate]:
    """The error of a method's gradient at the present weights, and its parts.

    Args:
        truth: At these weights.
        plans: The method's.
        memory: The method's, as training left it.
        key: Of the draws; the same for two methods with the same seed policy gives the same seeds.
        draws: R.
        exact: How many of them are split into seeds and embedding; 0: no such parts.

    Returns:
        Estimates by name, plain numbers, see the module; ``num_seeds``, ``num_nodes``, ``num_edges``: means of a draw.
    """
    errors, chosen, sizes = [], [], []
    with Untouched(truth.model, memory) as frozen:
        for r, plan in enumerate(independent(plans, key, draws)):
            errors.append(frozen.gradient(truth.gather_plan(plan)) - truth.gradient)
            if r < exact:
                chosen.append(truth.of(plan) - truth.gradient)
            sizes.append([plan.seeds.numel(), plan.num_nodes, plan.num_edges])
    found = total_of(torch.stack(errors))
    if chosen:
        found |= causes_of(torch.stack(errors[:exact]), torch.stack(chosen))
    means = torch.tensor(sizes).double()
    for name, column in zip(("num_seeds", "num_nodes", "num_edges"), means.T):
        found[name] = mean_of(column)
    return {n: Estimate(float(e.value), as_number(e.se), e.n) for n, e in found.items()}


def as_number(se: Number | None) -> float:
    """NaN where too few draws say nothing of their error."""
    return math.nan if se is None else float(se)


def total_of(errors: Tensor) -> dict[str, Estimate]:
    """Total, and what of it averages away; from (R, P) g~ - grad f of independent draws."""
    gram = inner(errors)
    own = gram.diagonal()
    return {
        "total": mean_of(own),
        "bias": squared_mean(gram),
        "variance": mean_of(own - with_others(gram)),
    }


def causes_of(errors: Tensor, chosen: Tensor) -> dict[str, Estimate]:
    """What is whose fault; from (R, P) g~ - grad f and g - grad f of the same draws."""
    total, seeds, embedding = (inner(a) for a in (errors, chosen, errors - chosen))
    return {
        "seeds": mean_of(seeds.diagonal()),
        "seeds_bias": squared_mean(seeds),
        "embedding": mean_of(embedding.diagonal()),
        "embedding_bias": squared_mean(embedding),
        "cross": mean_of((total - seeds - embedding).diagonal()),
    }
