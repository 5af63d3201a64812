"""GradNoise: against a noisy quadratic in closed form, dense algebra on six nodes, and an accumulated step."""

import pytest
import six_nodes
import torch
from instruments import noisy

import graphdyn as gd
from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.groups import Groups
from graphdyn.instruments.grad_noise import GradNoise
from graphdyn.instruments.instrument import Need
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem

REPLICATES = 160


def replicates(measure, count=REPLICATES):
    """(R,) values by key, of measurements under different keys."""
    found = [measure(seed) for seed in range(count)]
    numbers = {k: [f[k] for f in found] for k, v in found[0].items() if isinstance(v, Estimate)}
    return {
        k: torch.tensor([float(e.value) for e in v], dtype=torch.float64)
        for k, v in numbers.items()
    }


def assert_means(values, truth):
    """Every mean within five standard errors of the truth by (what, group)."""
    for key, v in values.items():
        group, what = noisy.plain(key)
        error = float(v.std()) / len(v) ** 0.5
        assert abs(float(v.mean()) - truth[what][group]) <= 5 * error, key
        assert error < 0.2 * max(truth[what]["all"], 1e-9)  # it says something


def test_noise_and_signal_of_independent_batches_are_unbiased():
    q, b = noisy.Quadratic(), 4
    problem, instrument = q.problem(b), GradNoise(m=6)
    values = replicates(lambda seed: instrument.measure(noisy.moment(q.model, problem, seed=seed)))
    share = 1 / b - 1 / q.count
    trace, square = q.trace(), q.square()
    truth = {"trace": trace, "square": square, "square_batch": square}
    truth["trace_batch"] = {g: share * v for g, v in trace.items()}
    assert set(values) == {k if g == "all" else (k, g) for k in truth for g in trace}
    assert_means(values, truth)
    # Negative control: without the correction for a finite population the noise of a target is wrong.
    plain = b * values["trace_batch"]
    assert abs(float(plain.mean()) - trace["all"]) > 10 * float(plain.std()) / REPLICATES**0.5


def accumulated(q, b, n, seed, *, disjoint, divide):
    """A moment after a step accumulated from n micro-batches, by plain autograd."""
    order = gd.Key(seed).permutation(q.count)
    pieces = [order[i * b : (i + 1) * b] for i in range(n)]
    if not disjoint:
        pieces = [gd.Key(seed).fold(i).permutation(q.count)[:b] for i in range(n)]
    q.model.zero_grad()
    groups, last, micro = Groups(q.model), None, []
    for ids in pieces:
        (q.loss(q.model, ids) / (n if divide else 1)).backward()
        now = groups.grads()
        own = now if last is None else now - last
        micro.append([float(own[place].square().sum()) for place in groups.slices.values()])
        last = now
    problem = q.problem(b)
    problem.simple = problem.simple._replace(disjoint=disjoint)
    return noisy.moment(q.model, problem, micro=torch.tensor(micro, dtype=torch.float64))


@pytest.mark.parametrize("disjoint", [True, False])
@pytest.mark.parametrize("divide", [True, False])
def test_micro_batches_say_the_same_for_nothing(disjoint, divide):
    q, b, n = noisy.Quadratic(), 3, 4
    scale = 1 if divide else n**2  # of a step that sums what others average
    values = replicates(
        lambda seed: GradNoise("micro").measure(
            accumulated(q, b, n, seed, disjoint=disjoint, divide=divide)
        ),
        60 if disjoint else REPLICATES,
    )
    trace = {g: scale * v for g, v in q.trace().items()}
    square = {g: scale * v for g, v in q.square().items()}
    if disjoint:
        batch = {g: v / b for g, v in trace.items()}
        less = {g: square[g] - trace[g] / q.count for g in square}
    else:
        batch, less = {g: v * (1 / b - 1 / q.count) for g, v in trace.items()}, square
    truth = {"trace": trace, "square": square, "trace_batch": batch, "square_batch": less}
    if not disjoint:
        assert_means(values, truth)
        return
    # Four disjoint batches of three are all twelve targets: the sum never moves.
    for key, v in values.items():
        group, what = noisy.plain(key)
        error = float(v.std()) / len(v) ** 0.5
        assert abs(float(v.mean()) - truth[what][group]) <= 5 * error + 1e-9, key


def test_micro_batches_are_the_u_statistics_of_their_gradients():
    q, b, n = noisy.Quadratic(), 3, 4
    s = accumulated(q, b, n, 5, disjoint=False, divide=True)
    pieces = [gd.Key(5).fold(i).permutation(q.count)[:b] for i in range(n)]
    rows = torch.stack([q.gradients()[ids].mean(0) for ids in pieces])
    found = GradNoise("micro").measure(s)
    assert float(found["trace_batch"].value) == pytest.approx(float(rows.var(0).sum()))
    products = [float(rows[i] @ rows[j]) for i in range(n) for j in range(n) if i != j]
    assert float(found["square_batch"].value) == pytest.approx(sum(products) / len(products))
    assert found["trace_batch"].se is None
    assert found["trace_batch"].n == n


def test_exact_neighbourhoods_leave_the_noise_of_targets():
    g, model = six_nodes.graph(), six_nodes.gcn()
    plans, _ = gd.method(sampler="neighbor", fanouts=1, batch_size=2).prepare(model, g)
    problem = NodeProblem(model, g, plans)
    dense = six_nodes.Dense(model, g)
    each = torch.stack([dense.gradient(dense.omega([v], 1.0)) for v in six_nodes.TRAIN])
    truth = float(each.var(0).sum())
    measure = GradNoise(m=4, exact=True).measure
    values = replicates(lambda seed: measure(noisy.moment(model, problem, seed=seed)), 40)
    error = float(values["trace"].std()) / 40**0.5
    assert abs(float(values["trace"].mean()) - truth) <= 5 * error
    sampled = replicates(
        lambda seed: GradNoise(m=4).measure(noisy.moment(model, problem, seed=seed)), 40
    )["trace"]
    assert float(sampled.mean()) - truth > 5 * float(sampled.std()) / 40**0.5


@pytest.mark.parametrize(("model", "method"), noisy.PAIRS)
def test_it_measures_every_model_under_every_method_and_changes_nothing(model, method):
    s = noisy.on_graph(model, method)
    found = noisy.unchanged(s, GradNoise(m=3).measure)
    for what in ("trace_batch", "square_batch"):
        parts = sum(float(found[what, g].value) for g in s.groups.names)
        assert float(found[what].value) == pytest.approx(parts, rel=1e-9, abs=1e-12)
    simple = method in ("neighbor", "labor", "vr-gcn")
    assert isinstance(found["trace"], Estimate) == simple
    if not simple:
        reason = "has all targets" if method == "full" else "not a uniform sample"
        assert reason in str(found["trace"])
        assert isinstance(found["square"], Invalid)


def test_dropout_of_torch_is_part_of_the_noise():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    x = torch.randn(20, 4)
    problem = FunctionProblem(
        lambda net, b: net(b).square().mean(), lambda key: x, num_targets=20, batch_size=20
    )
    found = GradNoise().measure(noisy.moment(model, problem))
    assert float(found["trace_batch"].value) > 1e-4
    model.eval()
    found = GradNoise().measure(noisy.moment(model, problem))
    assert abs(float(found["trace_batch"].value)) < 1e-12


def test_what_it_needs():
    assert GradNoise().needs == Need.PROBLEM
    assert GradNoise("micro").needs == Need.MICRO
    assert GradNoise("micro").cost == 0
    with pytest.raises(InputError, match="expected 'probe' or 'micro'"):
        GradNoise("both")


def test_micro_batches_that_are_none_are_refused():
    q = noisy.Quadratic()
    with pytest.raises(Invalid, match="not accumulated"):
        GradNoise("micro").measure(noisy.moment(q.model, q.problem(3)))
    one = noisy.moment(q.model, q.problem(3), micro=torch.ones(1, 2))
    with pytest.raises(Invalid, match="not accumulated"):
        GradNoise("micro").measure(one)
    q.model.zero_grad()
    clipped = noisy.moment(q.model, q.problem(3), micro=torch.ones(2, 2), modified=True)
    with pytest.raises(Invalid, match="written to"):
        GradNoise("micro").measure(clipped)


def test_without_a_problem_there_is_the_noise_of_batches():
    q = noisy.Quadratic()
    q.loss(q.model, torch.arange(4)).backward()
    found = GradNoise("micro").measure(noisy.moment(q.model, None, micro=torch.ones(2, 2)))
    assert isinstance(found["trace_batch"], Estimate)
    assert "problem=" in str(found["trace"])


def test_a_problem_that_says_nothing_of_its_targets():
    q = noisy.Quadratic()
    found = GradNoise().measure(noisy.moment(q.model, q.problem(3, simple=False)))
    assert "nobody said so" in str(found["trace"])
    assert isinstance(found["trace_batch"], Estimate)
