"""SymmetryMap: counts, cosines of training's gradients, and that it looks again when a norm is frozen."""

import pytest
import torch
from instruments import layered, walks

from graphdyn.estimate import Invalid
from graphdyn.instruments.symmetry_map import SymmetryMap, cosine
from graphdyn.keys import Key
from graphdyn.recorder import Recorder


def run(eps, steps=4, freeze=None):
    g = layered.graph()
    model = layered.model("gcn", norm="batch", head="linear")
    for norm in model.norms:
        norm.eps = eps
    problem = layered.node_problem(model, g, "neighbor")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    symmetries = []
    with Recorder(model, optimizer, [SymmetryMap(every=1)], problem=problem) as recorder:
        for step in range(steps):
            if step == freeze:
                model.norms[0].eval()
            for n, grad in problem.step_gradient(model, problem.draw(Key(step))).items():
                model.get_parameter(n).grad = grad.clone()
            optimizer.step()
            symmetries.append(recorder.symmetry)
    return walks.rows(recorder), symmetries


def test_counts_and_cosines():
    found, symmetries = run(1e-10)
    counts = [
        walks.last(found, f"symmetry_map.{n}", "all")[0]
        for n in ("invariant", "rescaling", "silent")
    ]
    assert counts == [5, 1, 3]
    worst = {g: rows[-1][1].value for (n, g), rows in found.items() if n.endswith("cosine")}
    assert len(worst) == 6
    assert max(worst.values()) < 1e-6
    assert symmetries[0] is symmetries[-1]  # looked for once
    rough, _ = run(1e-2)
    cosines = [r.value for _, r in rough["symmetry_map.cosine", "convs.0.lin.weight"]]
    assert cosines == sorted(cosines)  # the largest so far
    assert cosines[-1] > 1e-4


def test_it_looks_again_when_a_norm_is_frozen():
    found, symmetries = run(1e-10, freeze=2)
    assert symmetries[1] is symmetries[0]
    assert symmetries[2] is not symmetries[1]
    counts = [int(r.value) for _, r in found["symmetry_map.invariant", "all"]]
    assert counts[1] == 5
    assert counts[2] < 5


def test_the_cosine_by_hand():
    s = layered.snapshot(layered.model("gcn"), None)
    a, b = [*s.groups.places][:2]
    w, g = s.weights, torch.linspace(-1, 1, s.groups.size, dtype=torch.float64)
    parts = {n: (w[s.groups.places[n]], g[s.groups.places[n]]) for n in (a, b)}
    top = 2 * float(parts[a][0] @ parts[a][1]) - float(parts[b][0] @ parts[b][1])
    sizes = {n: float(x.norm() * y.norm()) for n, (x, y) in parts.items()}
    expected = abs(top) / (2 * sizes[a] + sizes[b])
    assert float(cosine({a: 2, b: -1}, s.groups, w, g)) == pytest.approx(expected)
    assert float(cosine({a: 2, b: -1}, s.groups, w, 0 * g)) == 0.0


def test_a_problem_without_small_data_is_said():
    class Blind(type(walks.scale_invariant(3)).__mro__[1]):
        num_targets, batch_size = 1, 1.0

        def draw(self, key):
            raise NotImplementedError

        loss = draw

    with pytest.raises(Invalid, match="small data"):
        SymmetryMap().setup(layered.snapshot(layered.model("gcn"), Blind()))
