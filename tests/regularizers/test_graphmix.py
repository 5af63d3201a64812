"""GraphMix: every part against dense algebra, who takes which step, and what is not defined."""

from dataclasses import replace
from itertools import combinations, permutations

import cases
import numpy as np
import oracles
import pytest
import torch

import graphdyn as gd
from graphdyn.batch import full_batch
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.memories.memory import Memory
from graphdyn.models.alone import Mixture
from graphdyn.parallel import World
from graphdyn.presets import Method, method
from graphdyn.regularizers import REGULARIZERS, GraphMix, build
from graphdyn.regularizers.unlabelled import Counts
from graphdyn.samplers import Full
from graphdyn.step import update

T, K = 0.1, 3


def mixing(recipe, graph, model, how=Method(Full())):
    prepared = how.prepare(model, graph, key=Key(5))
    prepared.memory.start()
    return recipe.objective(model, graph, prepared, how, key=Key(5))


def small(name="gcn", **options):
    graph = cases.tiny("undirected")
    model = cases.small_model(name, **{"layers": 2, "dropout": 0.0} | options)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.1 * cases.seeded(*parameter.shape, seed=i)
    return graph, model


def steps(graph, model, count=12):
    batch = full_batch(graph, model.propagation, key=Key(5))
    return [batch.at(batch.key.at(epoch=i, step=i)) for i in range(count)]


# ------------------------------------------------------------------------------------ the oracle


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def arrays(model):
    return {n: p.detach().numpy() for n, p in model.named_parameters()}


def network(p, x, a, mix=None, layer=1):
    """Two layers of a GCN on a matrix, rows mixed in front of one of them."""
    for i in range(2):
        x = mix(x) if mix is not None and i == layer else x
        x = a @ x @ p[f"convs.{i}.lin.weight"].T + p[f"convs.{i}.lin.bias"]
        x = np.maximum(x, 0) if i == 0 else x
    return x


def draw(key, part, size, layers=(1,)):
    """Which layer, which share, which partners: as keys say."""
    own = key.fold("graphmix", part)
    share = (own.fold("share").bits >> 11) / 2**53
    at = int((own.fold("layer").bits >> 11) / 2**53 * len(layers))
    return layers[at], share, own.fold("partner").permutation(size).numpy()


def bce(z, t):
    p = softmax(z)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()


def branch(model, key, part, x, target, layers=(1,)):
    layer, share, partner = draw(key, part, len(x), layers)

    def mix(h):
        return share * h + (1 - share) * h[partner]

    return bce(network(arrays(model), x, np.eye(len(x)), mix, layer), mix(target))


def oracle(graph, model, key, *, gamma, epoch, start=0.0, end=4.0, layers=(1,)):
    """The three parts of a step, in NumPy float64."""
    a = oracles.adjacency(graph.edge_index, graph.num_nodes).numpy()
    x, y, train = graph.x.numpy(), graph.y.numpy(), graph.split.train.numpy()
    z = network(arrays(model), x, a)
    supervised = -np.log(softmax(z)[train, y[train]]).mean()
    mixup = branch(model, key, "labelled", x[train], np.eye(3)[y[train]], layers)
    rest = np.setdiff1d(np.arange(graph.num_nodes), train)
    own = key.fold("graphmix", "unlabelled").fold("draw")
    ids = rest[own.integers(torch.arange(len(train)), len(rest)).numpy()]
    sharp = softmax(z)[ids] ** (1 / T)
    sharp /= sharp.sum(1, keepdims=True)
    ramp = np.exp(-5 * (1 - min(1, max(0, (epoch - start) / (end - start)))) ** 2)
    pseudo = gamma * ramp * branch(model, key, "unlabelled", x[ids], sharp, layers)
    return {"supervised": supervised, "mixup": mixup, "pseudo": pseudo}


RECIPE = GraphMix(passes=K, gamma=2.0, ramp_start=0, ramp_end=4)


@pytest.mark.parametrize("layers", [(1,), (0, 1), (0,)])
def test_every_part_equals_dense_algebra_in_every_epoch(layers):
    graph, model = small()
    rule = mixing(replace(RECIPE, mix_layers=layers), graph, model)
    drawn = set()
    for batch in steps(graph, model, 12):
        epoch = batch.key.epoch
        expected = oracle(graph, model, batch.key, gamma=2.0, epoch=epoch, layers=layers)
        found = rule.every(model, batch, node_loss)
        assert list(found) == ["supervised", "mixup", "pseudo"]
        for name, value in expected.items():
            np.testing.assert_allclose(found[name].item(), value, rtol=2e-6, err_msg=name)
        drawn.add(draw(batch.key, "labelled", 6, layers)[0])
    assert drawn == set(layers)


def test_the_ramp():
    recipe = GraphMix(gamma=10)
    found = [recipe.weight(e) for e in (0, 499, 500, 750, 1000, 3000)]
    floor = 10 * np.exp(-5)
    np.testing.assert_allclose(found, [floor] * 3 + [10 * np.exp(-5 / 4), 10, 10], rtol=1e-14)


def test_steps_alternate_by_a_coin_and_the_gradient_is_that_of_what_is_taken():
    graph, model = small()
    rule, taken = mixing(RECIPE, graph, model), []
    for batch in steps(graph, model, 40):
        aim = rule(model, batch, node_loss, hidden=True)
        every = rule.every(model, batch, node_loss)
        taken.append(rule.runs(batch))
        names = {"supervised"} if taken[-1] else {"mixup", "pseudo"}
        assert set(aim.parts) == names
        assert len(aim.output.hidden) == (2 if taken[-1] else 0)
        assert all(torch.equal(aim.parts[n], every[n]) for n in names)
        expected = torch.autograd.grad(sum(every[n] for n in names), [*model.parameters()])
        found = torch.autograd.grad(aim.total, [*model.parameters()])
        assert all(torch.allclose(a, b) for a, b in zip(found, expected))
    assert 5 < sum(taken) < 35


def test_jointly_all_parts_are_one_step():
    graph, model = small()
    rule = mixing(replace(RECIPE, mode="joint", branch_weight=0.25), graph, model)
    apart = mixing(replace(RECIPE, branch_weight=0.25), graph, model)  # which alternation ignores
    for batch in steps(graph, model, 4):
        aim = rule(model, batch, node_loss, hidden=False)
        every = apart.every(model, batch, node_loss)
        assert rule.runs(batch)
        expected = every["supervised"] + 0.25 * every["mixup"] + every["pseudo"]
        cases.close(aim.total, expected, 1e-12)
        assert torch.equal(sum(rule.every(model, batch, node_loss).values()), aim.total)


def test_targets_carry_no_gradient():
    """The part of unlabelled nodes is differentiated by the branch alone."""
    graph, model = small()
    rule, batch = mixing(RECIPE, graph, model), steps(graph, model, 1)[0]
    told = rule._told(model, batch)
    assert not told.target.requires_grad
    expected, _ = rule._fit(model, told, batch, "unlabelled")
    found = rule.every(model, batch, node_loss)["pseudo"]
    for a, b in zip(
        torch.autograd.grad(found, [*model.parameters()]),
        torch.autograd.grad(rule.recipe.weight(0) * expected, [*model.parameters()]),
    ):
        cases.close(a, b, 1e-12)


def test_predictions_are_means_over_passes_with_dropout_of_their_own():
    graph, model = small(dropout=0.5, input_dropout=0.3)
    rule, batch = mixing(RECIPE, graph, model), steps(graph, model, 1)[0]
    ids, key = torch.tensor([1, 3, 3, 8]), Key(9)
    drawn = rule.unlabelled(batch, rule.spent)._replace(batch=batch, rows=ids)
    found = rule._predict(model, drawn, key)
    each = [model(batch.at(key.fold(k))).logits.softmax(1)[ids] for k in range(K)]
    cases.close(found, sum(each).detach() / K, 1e-12)
    assert not torch.allclose(each[0], each[1])


@pytest.mark.parametrize("off", ["mixup", "pseudo"])
def test_both_ingredients_can_be_left_out(off):
    graph, model = small()
    rule, batch = mixing(replace(RECIPE, **{off: False}), graph, model), steps(graph, model, 1)[0]
    found = rule.every(model, batch, node_loss)
    if off == "pseudo":
        assert set(found) == {"supervised", "mixup"}
        return
    y = np.eye(3)[graph.y.numpy()]
    train, x = graph.split.train.numpy(), graph.x.numpy()
    apart = network(arrays(model), x[train], np.eye(len(train)))
    np.testing.assert_allclose(found["mixup"].item(), bce(apart, y[train]), rtol=2e-6)


def test_cross_entropy_in_the_branch():
    graph, model = small()
    rule, batch = mixing(replace(RECIPE, loss="ce"), graph, model), steps(graph, model, 1)[0]
    x, y, train = graph.x.numpy(), graph.y.numpy(), graph.split.train.numpy()
    _, share, partner = draw(batch.key, "labelled", len(train))

    def mix(h):
        return share * h + (1 - share) * h[partner]

    z = network(arrays(model), x[train], np.eye(len(train)), mix)
    expected = -(mix(np.eye(3)[y[train]]) * np.log(softmax(z))).sum(1).mean()
    np.testing.assert_allclose(
        rule.every(model, batch, node_loss)["mixup"].item(), expected, rtol=2e-6
    )


def test_a_node_without_a_label_counts_nothing():
    graph, model = small()
    rule, batch = mixing(replace(RECIPE, mixup=False), graph, model), steps(graph, model, 1)[0]
    y = batch.y.clone()
    y[2] = -1
    with_one_less = rule.every(model, replace(batch, y=y), node_loss)["mixup"]
    keep = torch.arange(6) != 2
    rows = {"rows": batch.rows[keep], "y": y[keep], "seed_weight": batch.seed_weight[keep]}
    cases.close(with_one_less, rule.every(model, replace(batch, **rows), node_loss)["mixup"], 1e-6)


def test_running_statistics_and_generators_hear_nothing_of_a_step_of_the_branch():
    graph, model = small(norm="batch", dropout=0.5)
    rule = mixing(RECIPE, graph, model)
    batch = next(b for b in steps(graph, model) if not rule.runs(b))
    before = {n: b.clone() for n, b in model.named_buffers()}
    generator = torch.get_rng_state()
    rule(model, batch, node_loss, hidden=False).total.backward()
    assert all(torch.equal(before[n], b) for n, b in model.named_buffers())
    assert torch.equal(generator, torch.get_rng_state())


# --------------------------------------------------------------------------------- under samplers


@pytest.mark.parametrize("name", ["gcn", "gat", "sage-mean", "gcnii", "appnp"])
def test_an_exact_mini_batch_of_all_training_nodes_is_the_full_graph(name):
    graph, model = small(name, dropout=0.4, input_dropout=0.3, edge_dropout=0.2)
    full = steps(graph, model, 1)[0]
    exact = cases.expanded_batch(graph, model, graph.split.train.tolist(), key=full.key)
    rule = mixing(replace(RECIPE, pseudo=False), graph, model)
    ours, theirs = (rule.every(model, b, node_loss) for b in (exact, full))
    assert set(theirs) == {"supervised", "mixup"}
    for part in theirs:
        cases.close(ours[part], theirs[part])


def test_predictions_from_what_is_within_reach_are_those_of_the_whole_graph():
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=8, layers=1, dropout=0.5, input_dropout=0.5)  # fmt: skip
    few = replace(graph, split=replace(graph.split, train=graph.split.train[:6]))
    rule = mixing(replace(RECIPE, mix_layers=(0,)), few, model)
    assert rule.unlabelled.near is not None
    batch = full_batch(few, model.propagation, key=Key(3))
    near = rule.unlabelled(batch, rule.spent)
    assert near.batch.x.shape[0] < graph.num_nodes / 2
    whole = near._replace(batch=batch, rows=near.ids)
    cases.close(rule._predict(model, near, Key(1)), rule._predict(model, whole, Key(1)), 1e-5)


def test_where_norms_average_over_rows_the_whole_graph_predicts():
    graph, model = small(norm="batch")
    assert mixing(RECIPE, graph, model).unlabelled.near is None


def test_what_is_drawn_are_other_nodes_evenly_with_replacement():
    graph, model = small()
    rule = mixing(RECIPE, graph, model)
    drawn = [rule.unlabelled(b, rule.spent).ids for b in steps(graph, model, 400)]
    assert all(d.numel() == 6 for d in drawn)
    counts = torch.bincount(torch.cat(drawn), minlength=12).double()
    rest = torch.ones(12, dtype=torch.bool)
    rest[graph.split.train] = False
    assert not counts[~rest].any()
    se = (2400 * (1 / 6) * (5 / 6)) ** 0.5
    assert ((counts[rest] - 400).abs() <= 5 * se).all()
    assert any(d.unique().numel() < 6 for d in drawn)


SAMPLERS = {
    "neighbor": ("neighbor", {"fanouts": -1, "batch_size": 3}),
    "cluster": ("cluster", {"parts": 1, "parts_per_batch": 1}),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_second_stream_brings_the_other_nodes_with_exact_predictions(name):
    graph, model = small(dropout=0.3)
    sampler, options = SAMPLERS[name]
    rule = mixing(RECIPE, graph, model, method(sampler=sampler, **options))
    full = full_batch(graph, model.propagation, key=Key(5))
    stream, seen = rule.unlabelled, []
    for step in range(2 * stream.plans.num_batches):
        key = Key(5).at(epoch=step, step=step)  # epochs of training are not those of the stream
        drawn = stream(full.at(key), rule.spent)
        assert torch.equal(drawn.x, graph.x[drawn.ids])
        assert drawn.batch.key.epoch == step // stream.plans.num_batches
        whole = drawn._replace(batch=full, rows=drawn.ids)
        cases.close(rule._predict(model, drawn, key), rule._predict(model, whole, key), 1e-6)
        seen.append(drawn.ids)
    epoch = torch.cat(seen[: stream.plans.num_batches])
    assert sorted(epoch.tolist()) == [1, 3, 5, 7, 8, 10]


def test_there_may_be_fewer_other_nodes_than_a_batch_has():
    graph, model = small()
    most = replace(graph, split=replace(graph.split, train=torch.arange(9)))
    rule = mixing(RECIPE, most, model, method(sampler="neighbor", fanouts=-1, batch_size=9))
    batch = full_batch(most, model.propagation, key=Key(5))
    assert sorted(rule.unlabelled(batch, rule.spent).ids.tolist()) == [9, 10, 11]


class Spy(Memory):
    """Says which verbs were called."""

    def __init__(self):
        self.heard = []

    def pull(self, batch):
        self.heard.append("pull")
        return batch

    def watch(self, output):
        self.heard.append("watch")

    def correct(self, batch):
        self.heard.append("correct")

    def push(self, batch, output):
        self.heard.append("push")


def test_memories_take_part_in_steps_that_run_the_model_on_the_batch():
    graph, model = small()
    rule, spy = mixing(RECIPE, graph, model), Spy()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for batch in steps(graph, model):
        spy.heard.clear()
        update(model, batch, optimizer, memory=spy, objective=rule)
        assert spy.heard == (["pull", "watch", "correct", "push"] if rule.runs(batch) else [])


def test_what_is_used_beside_batches_is_counted():
    graph, model = small()
    rule = mixing(RECIPE, graph, model, method(sampler="neighbor", fanouts=-1, batch_size=3))
    batch = next(b for b in steps(graph, model) if not rule.runs(b))
    rule(model, batch, node_loss, hidden=False)
    plan = rule.unlabelled.plans.plan(
        batch.key.fold("graphmix", "unlabelled").at(epoch=batch.key.step // 2, step=batch.key.step)
    )
    edges = sum(b.adjacency.csc.num_edges for b in plan.blocks)
    assert rule.spent.take() == Counts(K * edges, plan.num_nodes, plan.num_nodes * 5 * 8)
    assert rule.spent.take() == Counts(0, 0, 0)
    assert rule.spent.seconds["wait"] > 0
    rule.at(3).every(model, batch, node_loss)
    assert rule.spent.take() == Counts(0, 0, 0)  # looking is no training


# -------------------------------------------------------------------- weights of pairs, enumerated


def pair_losses(model, graph, train, share):
    """(N, N) of every pair of training nodes, and of every node with itself."""
    x, y = graph.x.numpy()[train], np.eye(3)[graph.y.numpy()[train]]
    p, n = arrays(model), len(train)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            h = np.maximum(x @ p["convs.0.lin.weight"].T + p["convs.0.lin.bias"], 0)
            h = share * h[i] + (1 - share) * h[j]
            z = h @ p["convs.1.lin.weight"].T + p["convs.1.lin.bias"]
            out[i, j] = bce(z[None], (share * y[i] + (1 - share) * y[j])[None])
    return out


def mixed(rule, model, graph, nodes, weight, partner, share):
    """The labelled part of a batch of nodes, whose partners are given."""
    rule._mixture = lambda key, ids: Mixture(1, share, torch.tensor(partner, dtype=torch.int64))
    batch = full_batch(graph, model.propagation, nodes=nodes)
    batch = replace(batch, seed_weight=weight)
    return rule._fit(model, rule._labelled(batch), batch, "labelled")[0].item()


def test_pairs_of_a_uniform_batch_count_as_stated():
    graph, model = small()
    rule, train = mixing(RECIPE, graph, model), graph.split.train
    n, b, share = 6, 3, 0.3
    losses = pair_losses(model, graph, train.numpy(), share)
    total = count = 0.0
    for chosen in combinations(range(n), b):
        for partner in permutations(range(b)):
            weight = torch.full((b,), 1 / b, dtype=torch.float64)
            total += mixed(rule, model, graph, train[list(chosen)], weight, partner, share)
            count += 1
    own = np.eye(n) / (b * n)
    apart = (1 - np.eye(n)) * (1 - 1 / b) / (n * (n - 1))
    np.testing.assert_allclose(total / count, (losses * (own + apart)).sum(), rtol=1e-6)


def test_pairs_of_independent_draws_count_as_on_the_full_graph():
    graph, model = small()
    rule, train = mixing(RECIPE, graph, model), graph.split.train[:4]
    n, share = 4, 0.3
    p = np.array([0.3, 0.9, 0.5, 0.7])
    losses = pair_losses(model, graph, train.numpy(), share)
    expected, plain = 0.0, 0.0
    for size in range(n + 1):
        for chosen in combinations(range(n), size):
            inside = np.isin(np.arange(n), chosen)
            chance = np.where(inside, p, 1 - p).prod()
            weight = torch.tensor([1 / (n * p[i]) for i in chosen], dtype=torch.float64)
            many = [*permutations(range(size))]
            for partner in many:
                rate = chance / len(many)
                found = mixed(rule, model, graph, train[list(chosen)], weight, partner, share)
                expected += rate * found
                plain += rate * sum(
                    float(weight[i]) * losses[chosen[i], chosen[partner[i]]] for i in range(size)
                )
    truth = (losses * ((1 - np.eye(n)) / n**2 + np.diag(1 / (n**2 * p)))).sum()
    np.testing.assert_allclose(expected, truth, rtol=1e-6)
    assert abs(plain - truth) > 1e-3  # weights of one of the two alone


# ------------------------------------------------------------------------------- what is undefined


def refused(recipe=GraphMix(), model=None, how=Method(Full()), graph=None, world=World()):
    graph = cases.tiny() if graph is None else graph
    model = cases.small_model("gcn") if model is None else model
    with pytest.raises(InputError) as error:
        recipe.check(model, how, graph, world)
    return str(error.value)


def test_what_is_not_defined_says_why_and_what_would_do():
    assert "passes no messages" in refused(model=cases.small_model("mlp"))
    assert "several labels" in refused(graph=cases.tiny(task="multilabel"))
    assert "number 2" in refused(GraphMix(mix_layers=(1, 3)))
    assert "number 0" in refused(model=cases.small_model("sgc", layers=1))
    assert "hides them" in refused(how=Method(Full(inductive=True)))
    assert "2 ranks" in refused(world=World(rank=0, size=2))
    for memory in ("saga", "spider", "cvd", "graphfm", "mvs", "importance", "output", "preprocess"):
        assert "follows the loss" in refused(how=method(sampler="neighbor", memory=memory)), memory
    assert "refill counts steps" in refused(how=method("gas", refill=5))
    graph = cases.tiny()
    all_train = replace(graph, split=replace(graph.split, train=torch.arange(12)))
    assert "none is unlabelled" in refused(graph=all_train)
    GraphMix(pseudo=False).check(cases.small_model("gcn"), Method(Full()), all_train)
    GraphMix(mode="joint").check(cases.small_model("gcn"), method("gas", refill=5), graph)
    GraphMix(mixup=False, mix_layers=(9,)).check(cases.small_model("gcn"), Method(Full()), graph)


def test_a_sampler_that_learns_knows_nothing_of_other_nodes():
    graph, model = small()
    with pytest.raises(InputError, match="a sampler that does not learn"):
        mixing(GraphMix(), graph, model, method(sampler="bandit", batch_size=3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "both"}, "mode"),
        ({"loss": "mse"}, "loss"),
        ({"alpha": 0.0}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"passes": 0}, "passes"),
        ({"gamma": -1.0}, "gamma"),
        ({"branch_weight": float("inf")}, "branch_weight"),
        ({"ramp_end": 500}, "ramp_end"),
        ({"mix_layers": (-1,)}, "mix_layers"),
        ({"ema": 1.0}, "ema"),
        ({"gama": 1.0}, "gamma"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(InputError, match=words):
        build("graphmix", **options)


def test_options_come_as_text():
    assert build("graphmix", mix_layers="0,1", gamma="1", mixup="false") == GraphMix(
        mix_layers=(0, 1), gamma=1.0, mixup=False
    )
    assert [*REGULARIZERS] == ["graphmix"]


def test_memories_that_may_be_read_beside_it():
    """A history is pulled for predictions, and notes nothing of it."""
    graph, model = small()
    how = method("vr-gcn", batch_size=3)
    rule = mixing(RECIPE, graph, model, how)
    memory = rule.unlabelled.memory
    (history,) = memory.members
    ages = history.ages.counts.clone()
    drawn = rule.unlabelled(steps(graph, model, 1)[0], rule.spent)
    borders = [b.border for b in drawn.batch.blocks if b.border is not None]
    assert borders
    assert all(border.states for border in borders)
    assert torch.equal(ages, history.ages.counts)
    assert Memory().look(drawn.batch) is drawn.batch
