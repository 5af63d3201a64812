"""ConservedQuantity: the recursion is exact for every architecture, sampler and memory; wrong ones are not."""

import pytest
import torch
from instruments import layered, walks

from graphdyn.estimate import Invalid
from graphdyn.instruments.conserved_quantity import ConservedQuantity, recursion, weighted
from graphdyn.keys import Key
from graphdyn.recorder import Recorder

MODELS = {
    "gcn": {},
    "gcn, batch": {"norm": "batch", "head": "linear"},
    "gcn, layer": {"norm": "layer", "skip": "identity", "head": "linear"},
    "gat": {"norm": "batch", "activation": "relu", "head": "linear"},
    "sage": {},
    "gcnii": {},
}


def run(name, method, steps=3, **options):
    g = layered.graph()
    model = layered.model(name.split(",")[0], **MODELS[name])
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12
    problem = layered.node_problem(model, g, method)
    optimizer = torch.optim.SGD(model.parameters(), **({"lr": 0.3, "weight_decay": 0.2} | options))
    weights = []
    with Recorder(model, optimizer, [ConservedQuantity(every=1)], problem=problem) as recorder:
        for step in range(steps):
            for n, grad in problem.step_gradient(model, problem.draw(Key(step))).items():
                model.get_parameter(n).grad = grad.clone()
            optimizer.step()
            weights.append({n: p.detach().clone() for n, p in model.named_parameters()})
    return walks.rows(recorder), weights


@pytest.mark.parametrize("method", ["full", "neighbor", "cluster", "labor"])
@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_the_recursion_is_exact_under_every_sampler(name, method):
    _check(name, method)


@pytest.mark.parametrize("name", MODELS)
def test_the_recursion_is_exact_for_every_architecture(name):
    _check(name, "neighbor")


@pytest.mark.parametrize("method", ["vr-gcn", "gas"])
def test_remembered_states_do_not_scale_with_weights_and_that_is_seen(method):
    found, _ = run("gcn", method)
    pairs = [
        (row.value, row.pred)
        for (what, _), rows in found.items()
        for _, row in rows
        if what == "conserved_quantity.quantity"
    ]
    off = max(abs(value / pred - 1) for value, pred in pairs)
    assert 1e-5 < off < 0.1


def _check(name, method):
    found, weights = run(name, method)
    sets = {group for what, group in found if what == "conserved_quantity.quantity"}
    assert sets
    for group in sets:
        for (_, row), now in zip(found["conserved_quantity.quantity", group], weights):
            terms = list(_terms(group))
            size = sum(abs(c) * float(now[n].square().sum()) for c, n in terms)
            value = sum(c * float(now[n].square().sum()) for c, n in terms)
            assert row.value == pytest.approx(value, abs=1e-9 * size)
            assert row.pred == pytest.approx(value, abs=1e-7 * size)
        balance, _ = walks.last(found, "conserved_quantity.balance", group)
        assert balance == pytest.approx(value / size, abs=1e-9)


def _terms(group):
    """(coefficient, name) of a label."""
    sign = 1
    for word in group.split(" "):
        if word in "+-":
            sign = 1 if word == "+" else -1
        elif word.isdigit():
            sign *= int(word)
        else:
            yield sign, word
            sign = 1


def test_a_recursion_without_one_of_its_terms_is_seen_to_be_wrong():
    found, _ = run("gcn", "neighbor", weight_decay=0.5)
    for group in {group for _, group in found}:
        for _, row in found["conserved_quantity.quantity", group]:
            before = row.value
            wrong = recursion(torch.tensor(before), torch.tensor(0.0), 0.3, 0.5)
            assert float(wrong) != pytest.approx(row.value, rel=1e-3)


def test_the_recursion_by_hand():
    q, squares = torch.tensor(2.0), torch.tensor(3.0)
    assert float(recursion(q, squares, 0.1, 0.5)) == pytest.approx(0.95**2 * 2 + 0.01 * 3)
    s = layered.snapshot(layered.model("gcn"), None)
    w = {n: p.detach() for n, p in s.model.named_parameters()}
    names = [*w][:2]
    expected = 2 * float(w[names[0]].square().sum()) - float(w[names[1]].square().sum())
    got = weighted({names[0]: 2, names[1]: -1}, s.groups, s.weights)
    assert float(got) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}])
def test_momentum_has_no_prediction(options):
    found, _ = run("gcn", "full", **options)
    assert all(row.pred is None for _, row in next(iter(found.values())))


def test_adamw_has_no_prediction():
    model = layered.model("gcn")
    problem = layered.node_problem(model, layered.graph())
    optimizer = torch.optim.AdamW(model.parameters())
    *_, s = walks.moments(model, optimizer, 1, lambda w, c: c, problem)
    reading = ConservedQuantity().measure(s)
    assert all(v.pred is None for (what, _), v in reading.items() if what == "quantity")


def test_a_model_without_such_a_symmetry_says_so():
    model = layered.model("gcn", activation="elu")
    s = layered.snapshot(model, layered.node_problem(model, layered.graph()))
    with pytest.raises(Invalid, match="nothing is conserved"):
        ConservedQuantity().setup(s)
