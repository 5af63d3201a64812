"""Batch norm with row weights: torch's own without them, the population's statistics with them."""

from dataclasses import replace

import cases
import pytest
import torch
from torch.nn import BatchNorm1d

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.models.norms import Moments, WeightedBatchNorm, build_norm, normalise

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 4.0, 1.0, 0.25, 3.0], dtype=torch.float64)


def pair(width=4, **options):
    """Ours and torch's with the same parameters, away from ones and zeros."""
    norms = WeightedBatchNorm(width, **options).double(), BatchNorm1d(width, **options).double()
    for norm in norms:
        for i, parameter in enumerate(norm.parameters()):
            parameter.data = 1.0 + 0.3 * cases.seeded(width, seed=i)
    return norms


def train_once(norm, *args):
    x = (2.0 + cases.seeded(7, 4, seed=3)).requires_grad_()
    out = norm(x, *args)
    (out * cases.seeded(7, 4, seed=4)).sum().backward()
    return [out, x.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("weight", [None, 1.0, 0.125])
def test_equal_weights_or_none_are_torchs_batch_norm(weight, affine, momentum):
    ours, reference = pair(affine=affine, momentum=momentum)
    args = () if weight is None else (torch.full((7,), weight, dtype=torch.float64),)
    for _ in range(3):
        for a, b in zip(train_once(ours, *args), train_once(reference)):
            if weight is None:
                assert torch.equal(a, b)
            else:
                cases.close(a, b, 1e-12)
        ours.zero_grad()
        reference.zero_grad()
    x = cases.seeded(5, 4)
    evaluated = ours.eval()(x, WEIGHT[:5]), reference.eval()(x)  # running statistics: no weights
    cases.close(*evaluated, 1e-12)


def test_weights_are_repetitions_of_rows():
    ours, reference = pair()
    times = torch.tensor([1, 3, 2, 1, 5, 1, 2])
    x = cases.seeded(7, 4, seed=8)
    starts = times.cumsum(0) - times
    expected = reference(x.repeat_interleave(times, 0))[starts]
    cases.close(ours(x, times.float()), expected, 1e-12)
    cases.close(ours(x, 0.1 * times.double()), expected, 1e-12)


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_two_orders_pass_gradgradcheck(affine):
    norm, _ = pair(affine=affine)
    names = [name for name, _ in norm.named_parameters()]
    x = cases.seeded(7, 4).requires_grad_()

    def apply(x, *parameters):
        given = dict(zip(names, parameters))
        return torch.func.functional_call(norm, given, (x, WEIGHT))

    inputs = (x, *(p.detach().clone().requires_grad_() for p in norm.parameters()))
    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)


def test_the_quick_first_derivative_is_the_plain_one():
    norm, _ = pair()
    grads = []
    for again in (False, True):
        x = (100.0 + cases.seeded(7, 4)).requires_grad_()  # far from zero: cancellation would show
        loss = (norm(x, WEIGHT) * cases.seeded(7, 4, seed=1)).sum()
        grads.append(torch.autograd.grad(loss, [x, *norm.parameters()], create_graph=again))
    for a, b in zip(*grads):
        cases.close(a, b.detach(), 1e-9)


def test_functional_gradients_agree():
    norm = WeightedBatchNorm(4, track_running_stats=False).double()
    x, c = cases.seeded(7, 4), cases.seeded(7, 4, seed=1)

    def loss(x):
        return (norm(x, WEIGHT) * c).sum()

    x.requires_grad_()
    cases.close(torch.func.grad(loss)(x.detach()), torch.autograd.grad(loss(x), x)[0], 1e-12)


def test_statistics_over_many_pieces_of_rows():
    rows, width = 12293, 64
    x, w = 5 + cases.seeded(rows, width), cases.seeded(rows).abs() + 0.1
    p = (w / w.sum())[:, None]
    mean = (p * x).sum(0)
    var = (p * (x - mean) ** 2).sum(0)
    out = WeightedBatchNorm(width).double()(x, w)
    cases.close(out.detach(), (x - mean) / (var + 1e-5).sqrt(), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_sums_in_float32(dtype):
    norm = WeightedBatchNorm(4, momentum=1.0)
    x = (3.0 + cases.seeded(500, 4)).to(dtype).requires_grad_()
    weight = cases.seeded(500, seed=1).abs() + 0.1
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x, weight)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert torch.isfinite(x.grad).all()
    mean = (weight[:, None] * x.double()).sum(0) / weight.sum()
    cases.close(norm.running_mean.double(), mean.detach(), 1e-5)


@pytest.mark.parametrize(
    ("rows", "weights", "words"),
    [(7, 6, r"\(6,\); expected \(7,\)"), (1, 1, "at least 2 are needed"), (0, 0, "0 row")],
)
def test_what_cannot_be_normalised_is_refused_in_words(rows, weights, words):
    with pytest.raises(InputError, match=words):
        WeightedBatchNorm(3)(torch.ones(rows, 3), torch.ones(weights))


class Population:
    """Rows whose values go with their probability, as degrees do under sampling."""

    size, batches = 300, 4000

    def __init__(self):
        self.prob = torch.linspace(0.08, 0.9, self.size, dtype=torch.float64)
        self.x = cases.seeded(self.size, 3) + 4.0 * self.prob[:, None]
        self.mean, self.var = self.x.mean(0), self.x.var(0, correction=0)

    def statistics(self, weighted):
        """(R, 2, 3) mean and variance that the norm took from each of R Poisson batches."""
        found = []
        for step in range(self.batches):
            norm = WeightedBatchNorm(3, momentum=1.0).double()
            coin = torch.rand(self.size, generator=Key(9, step=step).generator()).double()
            drawn = coin < self.prob
            norm(self.x[drawn], self.prob[drawn].reciprocal() if weighted else None)
            found.append(torch.stack([norm.running_mean, norm.running_var]))
        return torch.stack(found)


def test_weighted_statistics_of_samples_are_the_populations_and_unweighted_are_not():
    """P31. A ratio estimator is biased by one over the effective rows: its mean's bias to first order
    is known, -sum (1-p)/p (x - mean) / N^2, and is allowed for twice over; so is var / rows."""
    population = Population()
    x, p, n = population.x, population.prob[:, None], population.size
    bias = ((1 - p) / p * (x - population.mean)).sum(0).abs() / n**2
    rows = n**2 / (1 / p).sum()  # effective, of an average batch
    truth = torch.stack([population.mean, population.var])
    allowed = 2 * torch.stack([bias, population.var / rows])
    for weighted in (True, False):
        found = population.statistics(weighted)
        error = (found.mean(0) - truth).abs()
        bound = 5 * found.std(0) / population.batches**0.5 + allowed
        assert bool((bound < 0.1).all())
        assert bool((error <= bound).all()) == weighted
    assert bool((error[0] > 5 * bound[0]).all())  # the last were unweighted: far off, not just off


@pytest.mark.parametrize("order", cases.ORDERS)
def test_each_norm_gets_the_weights_of_the_block_whose_targets_it_sees(order):
    graph = cases.tiny()
    model = cases.small_model("gcn", layers=3, order=order, norm="weighted-batch", head="linear")
    for norm in model.norms:
        norm.momentum = 1.0
    batch = cases.expanded_batch(graph, model, [4, 11, 0, 9])
    blocks = [
        replace(b, node_prob=torch.linspace(0.2, 1.0, b.num_dst, dtype=torch.float64))
        for b in batch.blocks
    ]
    out = model(replace(batch, blocks=tuple(blocks)))
    states = [(h, 1 / b.node_prob) for h, b in zip(out.hidden, blocks)]
    if order == "pre":  # the input is no block's target: its rows count alike
        h0 = model.encoder(batch.x)
        states = [(h0, torch.ones(len(h0), dtype=torch.float64)), *states]
    assert len(states) == len(model.norms)
    for norm, (h, w) in zip(model.norms, states):
        cases.close(norm.running_mean, (w[:, None] * h).sum(0).detach() / w.sum(), 1e-12)


def test_an_mlp_weighs_the_targets_of_the_last_block():
    graph = cases.tiny()
    model = cases.small_model("mlp", layers=2, norm="weighted-batch")
    model.norms[0].momentum = 1.0
    batch = cases.expanded_batch(graph, cases.small_model("gcn"), [4, 11, 0, 9])
    prob = torch.tensor([0.1, 0.5, 1.0, 0.25], dtype=torch.float64)
    blocks = (*batch.blocks[:-1], replace(batch.blocks[-1], node_prob=prob))
    model(replace(batch, blocks=blocks))
    h, w = model.convs[0].lin(batch.x[:4]), 1 / prob
    cases.close(model.norms[0].running_mean, (w[:, None] * h).sum(0).detach() / w.sum(), 1e-12)


def test_other_norms_take_no_notice_of_weights():
    graph = cases.tiny()
    for norm in ("batch", "layer", "graph", "pair", "none"):
        model = cases.small_model("gcn", norm=norm)
        batch = cases.expanded_batch(graph, model, [4, 11, 0, 9])
        blocks = [replace(b, node_prob=torch.linspace(0.2, 1, b.num_dst)) for b in batch.blocks]
        weighed = model(replace(batch, blocks=tuple(blocks))).logits
        assert torch.equal(weighed, model(batch).logits)


def test_moments_of_parts_merge_to_those_of_the_whole():
    x = 1e4 + cases.seeded(50, 3)
    parts = [Moments.of(part) for part in x.split([1, 7, 30, 12])]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged.count == 50
    cases.close(merged.mean, x.mean(0), 1e-14)
    cases.close(merged.var, x.var(0, correction=0), 1e-11)


@pytest.mark.parametrize("name", ["batch", "weighted-batch", "graph", "pair"])
def test_a_part_of_the_rows_under_the_moments_of_all_is_that_part_of_the_result(name):
    norm = build_norm(name, 4).double()
    for i, parameter in enumerate(norm.parameters()):
        parameter.data = 1.0 + 0.3 * cases.seeded(4, seed=i)
    x = 3.0 + cases.seeded(9, 4)
    expected = norm(x)
    cases.close(normalise(norm, x[2:5], moments=Moments.of(x)), expected[2:5], 1e-12)
