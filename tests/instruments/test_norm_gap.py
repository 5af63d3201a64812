"""NormGap: by hand, and zero where nothing differs."""

import cases
import pytest
import torch
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.norm_gap import NormGap, gap, statistics_of
from graphdyn.samplers.inclusion import with_node_prob
from graphdyn.sight import Normed


def test_statistics_of_weighted_rows():
    x, norm = cases.seeded(6, 3), torch.nn.BatchNorm1d(3)
    mean, var = statistics_of(Normed(norm, x))
    cases.close(mean, x.sum(0) / 6, 1e-12)
    cases.close(var, (x - x.mean(0)).square().sum(0) / 5, 1e-12)
    one = torch.full((6,), 0.3)
    for got, expected in zip(statistics_of(Normed(norm, x, one)), (mean, var)):
        cases.close(got, expected, 1e-6)
    # Weights 2 and 1 are rows that stand there twice and once, but for the correction.
    weight = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    twice = torch.cat([x, x[:1]])
    mean, var = statistics_of(Normed(norm, x, weight))
    cases.close(mean, twice.mean(0), 1e-6)
    p = weight.double() / 7
    cases.close(var * (1 - p.square().sum()), twice.var(0, correction=0), 1e-6)


def test_gaps_of_known_statistics():
    mean = torch.tensor([1.0, 0.0])
    shift, stretch = gap(mean, torch.tensor([4.0, 1.0]), torch.zeros(2), torch.ones(2), 0.0)
    assert float(shift) == pytest.approx(0.5**0.5)
    assert float(stretch) == pytest.approx(torch.tensor(4.0).log().item() / 2**0.5)
    shift, stretch = gap(mean, torch.zeros(2), torch.zeros(2), torch.zeros(2), 0.25)
    assert float(shift) == pytest.approx(2 * 0.5**0.5)  # eps stands in for the deviation
    assert float(stretch) == 0


@pytest.mark.parametrize("norm", ["batch", "weighted-batch"])
def test_means_over_batches(norm):
    g = layered.graph()
    made = layered.model("gcn", norm=norm, dropout=0.0)
    made.norms[0].running_mean.copy_(cases.seeded(8, seed=4))
    made.norms[0].running_var.copy_(cases.seeded(8, seed=5).square() + 0.1)
    problem = layered.node_problem(made, g, "labor")
    problem.plans = with_node_prob(problem.plans, layered.N)
    s = layered.snapshot(made, problem)
    assert s.batch(0).block(0).node_prob.unique().numel() > 1
    found = NormGap(m=3).measure(s)
    assert {k[1] for k in found} == {"layer 1", "layer 2"}
    full = s.trace().states["layer 1"].detach()
    values = {"mean_to_running": [], "var_to_running": [], "mean_to_full": [], "var_to_full": []}
    others = {
        "running": (made.norms[0].running_mean, made.norms[0].running_var),
        "full": (full.mean(0), full.var(0)),
    }
    for i in range(3):
        z = s.trace("batch", i).states["layer 1"].detach()
        chance = s.batch(i).block(0).node_prob if norm == "weighted-batch" else None
        w = torch.ones(len(z)) if chance is None else 1 / chance
        p = w.double() / w.double().sum()
        mean = (p[:, None] * z).sum(0)
        var = (p[:, None] * (z - mean) ** 2).sum(0) / (1 - (p**2).sum())
        for name, (m, v) in others.items():
            values[f"mean_to_{name}"].append(((mean - m) ** 2 / (v + 1e-5)).mean().sqrt())
            ratio = ((var + 1e-5) / (v + 1e-5)).log()
            values[f"var_to_{name}"].append((ratio**2).mean().sqrt())
    for name, each in values.items():
        each = torch.stack(each)
        value, se, n, _ = found[name, "layer 1"]
        cases.close(value, each.mean(), 1e-9)
        cases.close(se, each.std() / 3**0.5, 1e-9)
        assert n == 3


def test_nothing_differs_on_the_whole_graph():
    g = layered.graph()
    made = layered.model("gcn", norm="batch", dropout=0.0)
    problem = layered.node_problem(made, g)
    s = layered.snapshot(made, problem)
    full = {n: statistics_of(x) for n, x in s.trace().normed.items()}
    for norm, (mean, var) in zip(made.norms, full.values()):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    found = NormGap(m=2).measure(s)
    assert len(found) == 8
    assert all(layered.number(v) < 1e-7 for v in found.values())
    made.norms[0].running_mean += 1
    moved = NormGap(m=2).measure(s)
    assert layered.number(moved["mean_to_running", "layer 1"]) > 0.1
    assert layered.number(moved["mean_to_full", "layer 1"]) < 1e-7


def test_norms_of_pyg_by_their_names():
    g = layered.graph()
    made = layered.pyg_model(norm="BatchNorm")
    found = NormGap(m=2).measure(layered.snapshot(made, layered.pyg_problem(made, g)))
    assert {k[1] for k in found} == {"norms.0.module", "norms.1.module"}
    assert layered.number(found["mean_to_full", "norms.0.module"]) > 0


def test_a_graph_in_pieces_has_no_statistics_of_its_own():
    g = layered.graph()
    made = layered.model("gcn", norm="batch")
    problem = layered.node_problem(made, g, "neighbor", chunk=7)
    found = NormGap(m=2).measure(layered.snapshot(made, problem))
    assert {k[0] for k in found} == {"mean_to_running", "var_to_running"}


def test_models_without_batch_norm():
    g = layered.graph()
    made = layered.model("gcn", norm="layer")
    with pytest.raises(Invalid, match="no batch norm that keeps running statistics"):
        NormGap().setup(layered.snapshot(made, layered.node_problem(made, g)))
