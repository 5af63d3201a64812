"""SamplerMSE: every batch and neighbour of six nodes by dense algebra, and a problem with a closed form."""

from functools import cache
from itertools import combinations

import pytest
import six_nodes
import torch
from instruments import noisy
from six_nodes import TRAIN, Dense, N

import graphdyn as gd
from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid
from graphdyn.groups import Groups
from graphdyn.instruments.by_group import at
from graphdyn.instruments.sampler_mse import SamplerMSE, parts_of
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import Problem
from graphdyn.statistics import jackknife

RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)]
FOUR = ("v_emb", "b2_cond", "v_sgd", "cross")
ALL = ("mse", *FOUR, "embedding", "bias2", "embedding_bias2", "between", "variance")


# --- every outcome of six nodes ---------------------------------------------------------------------


def truth_of(outcomes, full, slices):
    """Parts by (what, group) from [(probability of S, e(S), [(probability, g)])], as sums over outcomes."""
    parts: dict = {}

    def add(what, value):
        parts[what] = parts.get(what, 0.0) + value

    mean = torch.zeros_like(full)
    exact_mean = torch.zeros_like(full)
    for share, exact, draws in outcomes:
        inside = sum(p * g for p, g in draws)
        noise = sum(p * (g - inside) ** 2 for p, g in draws)
        add("v_emb", share * noise)
        add("b2_cond", share * (inside - exact) ** 2)
        add("v_sgd", share * (exact - full) ** 2)
        add("cross", share * 2 * (inside - exact) * (exact - full))
        add("mse", share * sum(p * (g - full) ** 2 for p, g in draws))
        add("second", share * inside**2)
        mean += share * inside
        exact_mean += share * exact
    parts["bias2"] = (mean - full) ** 2
    parts["exact_bias2"] = (exact_mean - full) ** 2
    parts["embedding_bias2"] = (mean - exact_mean) ** 2
    parts["between"] = parts.pop("second") - mean**2
    parts["embedding"] = parts["v_emb"] + parts["b2_cond"]
    parts["variance"] = parts["between"] + parts["v_emb"]
    parts["square"] = full**2
    found = {what: float(v.sum()) for what, v in parts.items()}
    for name, place in slices.items():
        found |= {(what, name): float(v[place].sum()) for what, v in parts.items()}
    return found


def neighbors_of(dense, size):
    chosen = [*combinations(TRAIN, size)]
    for targets in chosen:
        exact = dense.gradient(dense.omega(targets, 1 / size))
        yield 1 / len(chosen), exact, [*six_nodes.outcomes_of_neighbors(dense, targets)]


def determined(pairs):
    """Outcomes that S decides."""
    rows = [*pairs]
    return [(1 / len(rows), exact, [(1.0, sampled)]) for sampled, exact in rows]


def stale(memory):
    for name, tensor in memory.state().items():
        if "rows" in name:
            rng = torch.Generator().manual_seed(2)
            tensor += torch.randn(tensor.shape, generator=rng) * tensor.abs().mean().clamp(min=1)


@cache
def case(name):
    """A problem on six nodes and its truth."""
    if name.endswith("pairs"):
        model, problem, truth = case("neighbor")
        return model, WithoutFull(model, problem.graph, problem.plans), truth
    edges = RING if name == "neighbor" else six_nodes.EDGES
    g, model = six_nodes.graph(edges), six_nodes.gcn()
    dense = Dense(model, g, edges)
    options = {
        "neighbor": {"sampler": "neighbor", "fanouts": 1, "batch_size": 2},
        "random nodes": {"sampler": "node", "batch_size": 3, "independent": True},
        "stale history": {"sampler": "induced", "batch_size": 2, "memory": "history"},
    }[name]
    plans, memory = gd.method(**options).prepare(model, g, key=gd.Key(0))
    memory.start()
    stale(memory)
    if name == "random nodes":
        outcomes = determined(six_nodes.outcomes_of_random_nodes(dense, 3))
    elif name == "stale history":
        (table,) = [t for n, t in memory.state().items() if "rows" in n]
        outcomes = determined(six_nodes.outcomes_of_history(dense, table, 2))
    else:
        outcomes = [*neighbors_of(dense, 2)]
    groups = Groups(model)
    assert [*groups.parameters] == [n for n, _ in model.named_parameters()]
    full = dense.gradient(dense.omega(TRAIN, 1 / len(TRAIN)))
    return (
        model,
        NodeProblem(model, g, plans, memory=memory),
        truth_of(outcomes, full, groups.slices),
    )


class WithoutFull(NodeProblem):
    def full(self, key):
        raise Invalid("it is too large.")


@pytest.fixture(
    scope="module", params=["neighbor", "neighbor, by pairs", "random nodes", "stale history"]
)
def measured(request):
    model, problem, truth = case(request.param)
    found = SamplerMSE(m=100, k=2).measure(noisy.moment(model, problem))
    return request.param, found, truth


def test_every_part_is_the_sum_over_all_outcomes(measured):
    name, found, truth = measured
    there = {k: e for k, e in found.items() if isinstance(e, Estimate)}
    for key, estimate in there.items():
        value = truth[key]
        assert abs(float(estimate.value) - value) <= 5 * float(estimate.se) + 1e-7, (name, key)
        assert float(estimate.se) < 0.5 * truth["mse"]  # it says something
    expected = {*ALL, "exact_bias2", "square"}
    if name.endswith("pairs"):
        expected -= {"exact_bias2", "square"}
    assert {k for k in there if isinstance(k, str)} == expected


def test_both_laws_hold_to_rounding(measured):
    _, found, _ = measured
    for group in ("", "convs.0", "convs.1", "head"):

        def of(what, group=group):
            return float(found[(what, group) if group else what].value)

        assert of("mse") == pytest.approx(of("embedding") + of("v_sgd") + of("cross"), rel=1e-6)
        assert of("mse") == pytest.approx(of("bias2") + of("variance"), rel=1e-6, abs=1e-9)
        if isinstance(found["v_emb"], Estimate):
            assert of("embedding") == pytest.approx(of("v_emb") + of("b2_cond"), rel=1e-6, abs=1e-9)
            assert of("variance") == pytest.approx(of("v_emb") + of("between"), rel=1e-6, abs=1e-9)


def test_groups_add_up(measured):
    _, found, _ = measured
    for what in ("mse", "bias2", "cross"):
        parts = sum(float(found[what, g].value) for g in ("convs.0", "convs.1", "head"))
        assert float(found[what].value) == pytest.approx(parts, rel=1e-6, abs=1e-9)


def test_what_cannot_be_told_apart_is_merged_and_says_so():
    found = SamplerMSE(m=3).measure(noisy.on_graph("gcn", "saint-node"))
    for what in ("v_emb", "b2_cond", "between"):
        assert "targets and neighbours together" in str(found[what])
        assert "`embedding` and `variance`" in str(found[what])


def test_what_its_nodes_decide_has_no_noise_of_its_own(measured):
    name, found, _ = measured
    if not name.startswith("neighbor"):
        assert abs(float(found["v_emb"].value)) < 1e-12
        assert float(found["b2_cond"].value) == pytest.approx(float(found["embedding"].value))


# --- statistics of batches against those of the graph -----------------------------------------------


def dense_batch_norm(model, g, seeds, nodes, *, whole=False):
    """Gradient of a GCN with batch norm over those of the nodes that the seeds can hear, or all."""
    p = {n: q.detach().double().requires_grad_() for n, q in model.named_parameters()}
    a, seeds = Dense(six_nodes.gcn(), g).a, [*seeds]
    rows = [v for v in nodes if whole or any(a[s, v] for s in seeds)]
    h = a[rows] @ g.x.double() @ p["convs.0.lin.weight"].T + p["convs.0.lin.bias"]
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
    h = torch.relu(h * p["norms.0.weight"] + p["norms.0.bias"])
    z = a[seeds][:, rows] @ h @ p["convs.1.lin.weight"].T + p["convs.1.lin.bias"]
    loss = torch.nn.functional.cross_entropy(z, g.y[seeds])
    return torch.cat([v.flatten() for v in torch.autograd.grad(loss, [*p.values()])])


def test_batch_norm_leaves_a_gap():
    g = six_nodes.graph()
    model = gd.GCN(4, six_nodes.CLASSES, hidden=5, norm="batch", seed=0)
    plans, _ = gd.method(sampler="neighbor", fanouts=-1, batch_size=1).prepare(model, g)
    found = SamplerMSE(m=120).measure(noisy.moment(model, NodeProblem(model, g, plans)))
    mean = torch.stack([dense_batch_norm(model, g, [v], range(N)) for v in TRAIN]).mean(0)
    full = dense_batch_norm(model, g, TRAIN, range(N), whole=True)
    truth = float((mean - full).square().sum())
    gap = found["exact_bias2"]
    assert abs(float(gap.value) - truth) <= 5 * float(gap.se)
    assert float(gap.value) > 4 * float(gap.se)
    assert float(found["square"].value) == pytest.approx(float(full.square().sum()), rel=1e-4)
    assert abs(float(found["embedding"].value)) < 1e-8


def test_without_norms_exact_batches_have_no_bias(measured):
    name, found, _ = measured
    if not name.endswith("pairs"):
        gap = found["exact_bias2"]
        assert abs(float(gap.value)) <= 5 * float(gap.se)


# --- a problem with a closed form -------------------------------------------------------------------

TAU, SIGMA, B = 0.7, 0.5, 4  # noise of neighbours, of masks, targets a batch


class Closed(Problem):
    """The noisy quadratic; sampling adds beta(S) + tau z with beta(S) = beta0 + D mean c, masks sigma x."""

    def __init__(self, q):
        self.q, self.num_targets, self.batch_size = q, q.count, B
        size = q.theta.numel()
        self.d = torch.randn(size, size, generator=gd.Key(4).generator(), dtype=torch.float64) / 2
        self.beta0 = torch.linspace(0.2, 0.6, size, dtype=torch.float64)

    def draw(self, key):
        return key.fold("ids").permutation(self.q.count)[:B], key.fold("z"), key

    def redraw(self, batch, key):
        return batch[0], key, batch[2]

    def exact(self, batch):
        return batch[0], None, batch[2]

    def full(self, key):
        yield torch.arange(self.q.count), None, key

    def loss(self, model, batch):
        ids, noise, mask = batch
        push = SIGMA * normal(mask.fold("mask")) if model.drop.p else 0
        if noise is not None:
            push = push + self.beta0 + self.d @ self.q.centres[ids].mean(0) + TAU * normal(noise)
        return self.q.loss(model, ids) + (push * model.theta).sum()

    def truth(self, p):
        """(P,) parts by name."""
        q, ones = self.q, torch.ones_like(self.q.theta)
        cov = (1 / B - 1 / q.count) * torch.cov(q.centres.T)
        mean, masks = self.beta0 + self.d @ q.centres.mean(0), SIGMA**2 * ones * (p > 0)
        both = self.d - q.h
        parts = {
            "v_emb": TAU**2 * ones,
            "b2_cond": mean**2 + torch.diagonal(self.d @ cov @ self.d.T),
            "v_sgd": torch.diagonal(q.h @ cov @ q.h) + masks,
            "cross": -2 * torch.diagonal(self.d @ cov @ q.h),
            "bias2": mean**2,
            "embedding_bias2": mean**2,
            "between": torch.diagonal(both @ cov @ both.T) + masks,
            "exact_bias2": 0 * ones,
            "square": q.gradients().mean(0) ** 2,
        }
        parts["embedding"] = parts["v_emb"] + parts["b2_cond"]
        parts["mse"] = parts["embedding"] + parts["v_sgd"] + parts["cross"]
        parts["variance"] = parts["between"] + parts["v_emb"]
        parts |= {"dropout": masks} if p else {}
        each = {what: q.by_group(vector) for what, vector in parts.items()}
        return {
            what if group == "all" else (what, group): v
            for what, groups in each.items()
            for group, v in groups.items()
        }


def normal(key, *shape):
    return torch.randn(*(shape or (5,)), generator=key.generator(), dtype=torch.float64)


def assert_unbiased(found, truth):
    for key, value in truth.items():
        values = torch.tensor([float(f[key].value) for f in found], dtype=torch.float64)
        error = float(values.std()) / len(found) ** 0.5
        assert abs(float(values.mean()) - value) <= 5 * error + 1e-12, key


def test_masks_are_told_from_targets():
    q = noisy.Quadratic()
    q.model.drop = torch.nn.Dropout(0.5)
    problem, instrument = Closed(q), SamplerMSE(m=8, k=2, masks=3)
    moments = [noisy.moment(q.model, problem, seed=r) for r in range(40)]
    found = [instrument.measure(s) for s in moments]
    truth = problem.truth(0.5)
    assert set(found[0]) == set(truth)
    assert_unbiased(found, truth)
    # Negative control: against one full gradient, its masks would look like a bias of every batch.
    apart = []
    for s in moments:
        probe = s.probe(8, 2, exact=True)
        parts = parts_of(s.groups, probe.grads, probe.exact, s.full_grad()[None])
        apart.append(float(parts["exact_bias2"].value[-1]))
    apart = torch.tensor(apart)
    assert float(apart.mean()) > 5 * float(apart.std()) / 40**0.5


def simulated(problem, m, k, masks, seed):
    """What a probe of the closed form would hold, by algebra: (grads, exact, full)."""
    q, key = problem.q, gd.Key(seed).fold("simulated")
    centres = torch.stack(
        [q.centres[key.fold("S", i).permutation(q.count)[:B]].mean(0) for i in range(m)]
    )
    noise = SIGMA * (masks > 1)
    exact = (q.theta - centres) @ q.h + noise * normal(key.fold("masks"), m, 5)
    pushed = exact + problem.beta0 + centres @ problem.d.T
    grads = pushed[:, None] + TAU * normal(key.fold("z"), m, k, 5)
    full = q.gradients().mean(0) + noise * normal(key.fold("full"), masks, 5)
    return grads, exact, full


@pytest.mark.parametrize("how", ["full", "masks", "pairs", "one draw"])
def test_the_closed_form(how):
    q = noisy.Quadratic()
    problem, groups, m = Closed(q), Groups(q.model), 16
    truth = problem.truth(0.5 if how == "masks" else 0.0)
    found = []
    for seed in range(200):
        draws, masks = 1 if how == "one draw" else 2, 4 if how == "masks" else 1
        grads, exact, full = simulated(problem, m, draws, masks, seed)
        parts = parts_of(groups, grads, exact, None if how == "pairs" else full)
        names = ("a", "b", "all")
        found.append({(w, g): at(e, i) for w, e in parts.items() for i, g in enumerate(names)})
    there = {k: v for k, v in truth.items() if noisy.plain(k)[::-1] in found[0]}
    missing = {"pairs": 6, "one draw": 9}.get(how, 0)  # three a part
    assert len(there) == len(truth) - missing == len(found[0])
    found = [{k: f[noisy.plain(k)[::-1]] for k in there} for f in found]
    assert_unbiased(found, there)
    # Negative control: the published identity leaves the cross term out.
    cross = torch.tensor([float(f["cross"].value) for f in found])
    assert abs(float(cross.mean())) > 5 * float(cross.std()) / len(found) ** 0.5


@pytest.mark.parametrize("how", ["full", "pairs", "one draw"])
def test_errors_are_those_of_batches_left_out(how):
    q, m = noisy.Quadratic(), 6
    groups = Groups(q.model)
    grads, exact, full = simulated(Closed(q), m, 1 if how == "one draw" else 2, 1, 3)
    full = None if how == "pairs" else full
    found = parts_of(groups, grads, exact, full)
    keep = [[j for j in range(m) if j != i] for i in range(m)]
    left = [parts_of(groups, grads[rows], exact[rows], full) for rows in keep]
    for name, estimate in found.items():
        if "bias2" not in name and name != "square":  # whose errors have a part of their own
            se = jackknife(torch.stack([parts[name].value for parts in left]))
            assert torch.allclose(estimate.se, se), name


@pytest.mark.parametrize("how", ["full", "masks", "pairs"])
def test_how_often_intervals_cover(how):
    """Normal errors in 40 dimensions, where squares are not skewed: 95 per cent are 95 per cent."""
    size, m, count = 40, 16, 400
    groups = Groups(torch.nn.Linear(size, 1, bias=False))
    spread, push = 0.5, torch.linspace(0, 0.4, size, dtype=torch.float64)
    masks = 0.3 * (how == "masks")
    found = []
    for seed in range(count):
        key = gd.Key(seed).fold("cover")
        full = 1 + masks * normal(key.fold("full"), 4, size)
        exact = 1 + (spread**2 + masks**2) ** 0.5 * normal(key.fold("exact"), m, size)
        grads = (exact + push)[:, None] + TAU * normal(key.fold("grads"), m, 2, size)
        full = {"full": full[:1], "masks": full, "pairs": None}[how]
        found.append({n: at(e, -1) for n, e in parts_of(groups, grads, exact, full).items()})
    square = float(push.square().sum())
    truth = {"v_emb": size * TAU**2, "b2_cond": square, "bias2": square, "cross": 0.0}
    truth["embedding_bias2"] = square
    truth |= {"v_sgd": size * (spread**2 + masks**2), "between": size * (spread**2 + masks**2)}
    truth["embedding"] = truth["v_emb"] + square
    truth["mse"] = truth["embedding"] + truth["v_sgd"]
    truth["variance"] = truth["v_emb"] + truth["between"]
    covered = {n: coverage([f[n] for f in found], v) for n, v in truth.items()}
    # Where a mean over masks is the reference the interval is a bound.
    wide = ("v_sgd", "mse", "bias2") if how == "masks" else ()
    for name, share in covered.items():
        assert 0.92 <= share <= (1.0 if name in wide else 0.975), name
    assert 0.935 <= sum(covered.values()) / len(covered) <= 0.975


def coverage(estimates, truth):
    values, errors = (
        torch.tensor([float(e[i]) for e in estimates], dtype=torch.float64) for i in (0, 1)
    )
    return float(((values - truth).abs() <= 2.1314 * errors).double().mean())  # Student, 15


# --- everything else --------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "method"), noisy.PAIRS)
def test_it_measures_every_model_under_every_method_and_changes_nothing(model, method):
    s = noisy.on_graph(model, method)
    found = noisy.unchanged(s, SamplerMSE(m=3).measure)
    values = {k: float(e.value) for k, e in found.items() if isinstance(e, Estimate)}
    assert all(v == v for v in values.values())
    assert values["mse"] == pytest.approx(
        values["embedding"] + values["v_sgd"] + values["cross"], rel=1e-6, abs=1e-10
    )
    assert ("v_emb" in values) == (method != "saint-node")
    if method == "full":
        assert values["mse"] < 1e-8
    if method in ("cluster", "gas"):
        assert abs(values["v_emb"]) < 1e-12
    if method == "neighbor":
        assert values["v_emb"] > 0


def test_dropout_of_a_graph_model_is_told():
    s = noisy.on_graph("sage", "neighbor", dropout=0.5)
    s.model.train()
    found = SamplerMSE(m=3, masks=2).measure(s)
    assert float(found["dropout"].value) > 0
    s = noisy.on_graph("sage", "neighbor", dropout=0.5)
    s.model.eval()
    assert "dropout" not in SamplerMSE(m=3).measure(s)


def test_what_it_refuses():
    for name, value in {"m": 2, "k": 1, "masks": 1}.items():
        with pytest.raises(InputError, match=f"{name} is {value}"):
            SamplerMSE(**{name: value})


def test_nobody_knows_exact_neighbourhoods():
    class Blind(Closed):
        def exact(self, batch):
            return Problem.exact(self, batch)

    q = noisy.Quadratic()
    q.model.drop = torch.nn.Dropout(0.0)
    with pytest.raises(Invalid, match="exact neighbourhoods"):
        SamplerMSE().measure(noisy.moment(q.model, Blind(q)))
