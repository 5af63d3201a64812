"""MVS-GNN: exact scores, unbiased weights and their variance by enumeration, outer steps on time (P26)."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from cases import close, seeded, small_model, state, tiny, whole
from memories.replays import TRAIN, assert_resumes, flat, gradient_of, move, run, still

from graphdyn.data import csbm
from graphdyn.errors import GraphdynError, InputError
from graphdyn.gradient import gradient
from graphdyn.keys import Key
from graphdyn.loader import Loader, gather
from graphdyn.loss import node_losses
from graphdyn.memories import History, Mvs, Setting, build
from graphdyn.memories.mvs import predicted_gain
from graphdyn.memories.passes import exact_outputs
from graphdyn.models import build as build_model
from graphdyn.parallel import World
from graphdyn.samplers import Induced
from graphdyn.samplers import build as build_sampler
from graphdyn.samplers.poisson import Scored, inclusion
from graphdyn.samplers.seeds import Seeds
from graphdyn.step import train, update

SAMPLERS = {
    "induced": {},
    "neighbor": {"fanouts": (2,)},
    "labor": {"fanouts": (2,)},
    "ladies": {"nodes": (4,)},
}
POOL = torch.tensor(TRAIN)


def bound(model, graph, recipe, sampler="induced", **options):
    """A memory on its sampler, not started."""
    base = build_sampler(sampler, **{"batch_size": 3, **SAMPLERS[sampler], **options})
    plans = recipe.wrap(base).prepare(graph, model.propagation, model.num_hops)
    where = Setting(model, graph, plans)
    return where, recipe.bind(where)


def started(model, graph, recipe=Mvs(), sampler="induced"):
    where, memory = bound(model, graph, recipe, sampler)
    memory.start()
    return where, memory


def norms_by_autograd(model, graph, names):
    """(T,) norm of each training node's gradient by some parameters, on the full graph, one backward each."""
    model.eval()
    batch = whole(graph, model)
    chosen = [p for n, p in model.named_parameters() if n in names]
    losses = node_losses(model(batch).logits, batch)
    rows = [torch.autograd.grad(phi, chosen, retain_graph=True) for phi in losses]
    model.train()
    return torch.stack([torch.cat([g.flatten() for g in row]).norm() for row in rows])


def last(model, bias=True):
    layer = f"convs.{len(model.convs) - 1}.lin."
    return {layer + "weight", *([layer + "bias"] if bias else [])}


def by_bisection(scores, total):
    low, high = 0.0, 1e6 / float(scores.max())
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if np.minimum(1, c * scores).sum() < total else (low, c)
    return np.minimum(1, high * scores)


def subsets(memory, where):
    """Every batch of Poisson seeds with its probability, exact in float64."""
    p = memory.seeds.threshold
    for bits in product((False, True), repeat=len(TRAIN)):
        inside = torch.tensor(bits)
        chance = float(torch.where(inside, p, 1 - p).prod())
        seeds = Seeds(POOL[inside], (1 / (p * len(TRAIN)))[inside], p[inside].float())
        key = Key(7)
        plan = where.plans.around(where.plans.base.plan_for(seeds, key))
        yield chance, memory.pull(gather(plan, where.graph.x, where.graph.y))


@pytest.mark.parametrize("norm", ["layer", "logits"])
def test_seeds_are_as_likely_as_their_gradients_are_large(norm):
    model, graph = small_model("gcn", dropout=0.5), tiny()
    _, memory = started(model, graph, Mvs(norm=norm, floor=0.2))
    if norm == "layer":
        g = norms_by_autograd(model, graph, last(model))
    else:
        model.eval()
        batch = whole(graph, model)
        logits = model(batch).logits[batch.rows]
        g = (torch.softmax(logits, 1) - torch.eye(3)[batch.y]).norm(dim=1)
    p = by_bisection(g.detach().numpy(), 3)
    np.testing.assert_allclose(memory.seeds.threshold, 0.8 * p + 0.2 * 3 / 6, rtol=1e-5)
    assert memory.seeds.threshold.dtype == torch.float64
    close(memory.seeds.weight.double(), 1 / (6 * memory.seeds.threshold))


def test_the_gradient_of_the_last_layer_is_unbiased_with_the_variance_of_independent_draws():
    """All 64 subsets; histories are exact, so no other error is left. A forgotten weight is found out."""
    model, graph = small_model("gcn"), tiny()
    where, memory = started(model, graph, Mvs(floor=0.3))
    names = last(model)
    full = {n: g for n, g in gradient(model, whole(graph, model)).items() if n in names}
    mean, square, plain = 0, 0, 0
    for chance, batch in subsets(memory, where):
        found = flat({n: g for n, g in gradient(model, batch).items() if n in names})
        mean, square = mean + chance * found, square + chance * found.square().sum()
        count = max(1, batch.rows.numel())
        even = torch.full_like(batch.seed_weight, 1 / count)
        bare = gradient(model, replace(batch, seed_weight=even))
        plain = plain + chance * flat({n: g for n, g in bare.items() if n in names})
    close(mean, flat(full), 1e-5)
    assert float((plain - flat(full)).norm() / flat(full).norm()) > 0.01
    g = norms_by_autograd(model, graph, names)
    p = memory.seeds.threshold
    variance = ((1 / p - 1) * g.square()).sum() / 36
    assert float(square - mean.square().sum()) == pytest.approx(float(variance), rel=1e-4)
    uniform = (2 - 1) * g.square().sum() / 36  # p = 1/2 for all
    assert float(variance) < float(uniform)
    assert memory.gain == pytest.approx(float(uniform / variance), rel=1e-4)


@pytest.mark.parametrize("mode", ["replace", "control"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_exact_histories_every_batch_has_the_logits_of_the_full_graph(sampler, mode):
    model, graph = small_model("gcn", skip="identity"), tiny()
    where, memory = started(model, graph, Mvs(mode=mode), sampler)
    full = model(whole(graph, model)).logits
    assert where.plans.live
    for batch in Loader(where.plans, graph, epochs=2):
        pulled = memory.pull(batch)
        close(model(pulled).logits[pulled.rows], full[pulled.seeds], 1e-5)


def test_an_outer_step_renews_scores_and_what_it_touched_and_nothing_else():
    model, graph = small_model("gcn", norm="batch", dropout=0.3), tiny()
    recipe = Mvs(inner_steps=4, share=1 / 6, floor=0.5, start="zero", momentum=0.5)
    _, memory = bound(model, graph, recipe)
    kept = {n: b.clone() for n, b in (model.state_dict() | dict(model.named_buffers())).items()}
    memory.renew(Key(0), 3)
    assert all(torch.equal(b, kept[n]) for n, b in model.state_dict().items())
    assert model.training
    written = {hop: w == 3 for hop, w in memory.tables.written.items()}
    assert all(0 < int(w.sum()) < 12 for w in written.values())
    assert all(not t[~written[h]].any() for h, t in memory.tables.rows.items())
    # One of six was scored, the others have its score: all are alike.
    close(memory.seeds.prob, torch.full((6,), 0.5))
    before = {hop: t.clone() for hop, t in memory.tables.rows.items()}
    move(model, 0.3, seed=1)
    memory.renew(Key(0).fold("mvs"), 7)
    again = {hop: w == 7 for hop, w in memory.tables.written.items()}
    for hop, table in memory.tables.rows.items():
        assert torch.equal(table[~again[hop]], before[hop][~again[hop]])
        assert not torch.equal(table[again[hop]], before[hop][again[hop]])


def test_what_an_outer_step_writes_is_exact():
    model, graph = small_model("gcn", dropout=0.5), tiny()
    _, memory = started(model, graph, Mvs(start="zero", momentum=0.5))
    move(model, 0.3, seed=2)
    memory.renew(Key(1), 3)
    outputs = exact_outputs(model, graph)
    for hop, table in memory.tables.rows.items():
        new = memory.tables.written[hop] == 3
        assert int(new.sum()) >= 6
        close(table[new].double(), outputs[hop][new], 1e-5)


def test_outer_steps_come_every_k_steps_and_cost_what_they_say(monkeypatch):
    model, graph = small_model("gcn"), tiny()
    where, memory = bound(model, graph, Mvs(inner_steps=3))
    seen, keys = [], []
    renew = memory.renew

    def counted(key, step):
        seen.append(step)
        keys.append(key)
        renew(key, step)

    monkeypatch.setattr(memory, "renew", counted)
    memory.start()
    run(where, still(model), memory, range(8))
    assert seen == [0, 2, 5]
    assert [key.step for key in keys] == [0, 2, 5]  # another subset each time
    report = memory.report()
    assert report["refresh_nodes"] > 0
    assert report["seed_gain"] > 1


def test_subsets_differ_between_outer_steps_and_are_uniform():
    model, graph = small_model("gcn"), tiny()
    _, memory = bound(model, graph, Mvs(share=0.5))
    hits = np.zeros(6)
    for step in range(400):
        batch, place = memory._subset(Key(0, step=step))
        assert batch.seeds.tolist() == POOL[place].tolist()
        assert len(set(place.tolist())) == 3
        hits[place.numpy()] += 1
    assert (np.abs(hits / 400 - 0.5) <= 5 * 0.5 / np.sqrt(400)).all()


def test_nodes_outside_the_subset_keep_a_chance():
    model, graph = small_model("gcn"), tiny()
    for unseen in ("mean", "zero"):
        _, memory = started(model, graph, Mvs(share=0.5, floor=0.1, unseen=unseen))
        _, place = memory._subset(Key(0).fold("mvs"))
        outside = torch.ones(6, dtype=torch.bool).index_fill_(0, place, False)
        p = memory.seeds.threshold
        g = norms_by_autograd(model, graph, last(model))[place]
        scores = torch.full((6,), float(g.mean()), dtype=torch.float64) * (unseen == "mean")
        scores[place] = g
        expected = 0.9 * inclusion(scores, 3) + 0.1 * 3 / 6
        close(p, expected, 1e-5)
        assert float(p.sum()) == pytest.approx(3)
        assert (float(p[outside].max()) == pytest.approx(0.05)) == (unseen == "zero")


@pytest.mark.parametrize("norm", ["none", "batch", "graph"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_without_seeds_changes_nothing_but_the_clock(sampler, norm):
    model, graph = small_model("gcn", norm=norm, dropout=0.5), tiny()
    where, memory = started(model, graph, Mvs(), sampler)
    none = Seeds(POOL[:0], torch.zeros(0), torch.zeros(0))
    plan = where.plans.around(where.plans.base.plan_for(none, Key(0)))
    before = {n: p.clone() for n, p in state(model).items()}
    tables = {hop: t.clone() for hop, t in memory.tables.rows.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = update(model, gather(plan, graph.x, graph.y), optimizer, memory=memory)
    assert float(step.loss) == 0
    assert all(torch.equal(p, before[n]) for n, p in state(model).items())
    assert all(torch.equal(t, tables[hop]) for hop, t in memory.tables.rows.items())


@pytest.mark.parametrize("sampler", ["induced", "labor"])
def test_a_resumed_run_ends_in_the_same_bits(sampler):
    """The checkpoint lies between two outer steps, and a third follows."""

    def fresh():
        model = small_model("gcn", dropout=0.3, norm="layer").float()
        recipe = Mvs(inner_steps=3, share=0.5)
        where, memory = bound(model, tiny(dtype=torch.float32), recipe, sampler)
        memory.start()
        return where, torch.optim.Adam(model.parameters(), lr=0.05), memory

    assert_resumes(fresh)


def test_a_resumed_run_needs_the_scores():
    """Negative control: with the chances of the start the next seeds are others."""
    model, graph = small_model("gcn"), tiny()
    where, memory = started(model, graph)
    key = Key(0).at(step=1)
    drawn = [where.plans.plan(key.at(step=s)).seeds.tolist() for s in range(9)]
    kept = {n: t.clone() for n, t in memory.state().items()}
    other, blank = bound(model, graph, Mvs())
    assert drawn != [other.plans.plan(key.at(step=s)).seeds.tolist() for s in range(9)]
    blank.restore(kept)
    assert drawn == [other.plans.plan(key.at(step=s)).seeds.tolist() for s in range(9)]
    assert blank.gain == memory.gain


@pytest.mark.parametrize(
    "name", ["gcn", "sage-mean", "sage-max", "sgc", "gcnii", "mlp", "gat", "appnp"]
)
def test_it_trains_every_architecture(name):
    graph = csbm(90, num_classes=3, num_features=8, split="random-10x10x10")
    kind, _, aggregator = name.partition("-")
    options = {"aggregator": aggregator} if aggregator else {}
    model = build_model(kind, graph.num_features, graph.num_classes, hidden=8, **options)
    recipe = Mvs(inner_steps=2, norm="logits" if name in ("gat", "appnp") else "layer")
    recipe.check(model)
    plans = recipe.wrap(Induced(batch_size=8)).prepare(graph, model.propagation, model.num_hops)
    memory = recipe.bind(Setting(model, graph, plans))
    memory.start()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    loader = Loader(plans, graph, epochs=6, workers=2)
    assert loader.workers == 0
    before = whole_loss(model, graph)
    list(train(model, loader, optimizer, memory=memory))
    assert whole_loss(model, graph) < 0.8 * before


def whole_loss(model, graph):
    model.eval()
    batch = whole(graph, model)
    with torch.no_grad():
        value = node_losses(model(batch).logits, batch).mean()
    model.train()
    return float(value)


def test_ranks_of_one_run_score_the_same_draw():
    model, graph = small_model("gcn"), tiny()
    memories, seeds = [], []
    for rank in range(2):
        plans = (
            Mvs()
            .wrap(Induced(batch_size=2))
            .prepare(graph, model.propagation, model.num_hops, world=World(rank, 2))
        )
        memory = Mvs().bind(Setting(model, graph, plans))
        memory.start()
        memories.append(memory)
        seeds.append([set(plans.plan(Key(0, step=s)).seeds.tolist()) for s in range(6)])
    assert torch.equal(memories[0].seeds.threshold, memories[1].seeds.threshold)
    assert float(memories[0].seeds.threshold.sum()) == pytest.approx(4)
    assert all(not a & b for a, b in zip(*seeds))


def test_a_diverged_model_is_named():
    model, graph = small_model("gcn"), tiny()
    _, memory = started(model, graph)
    with torch.no_grad():
        model.convs[0].lin.weight.fill_(torch.nan)
    with pytest.raises(GraphdynError, match=r"the score of node 0 is nan"):
        memory.renew(Key(0), 1)


def test_the_gain_is_a_ratio_of_variances():
    g, p = seeded(5).abs(), torch.tensor([0.9, 0.5, 0.4, 1.0, 0.2])
    chosen = ((1 - p) / p * g.square()).sum()
    assert predicted_gain(g, p, 0.6) == pytest.approx(float(0.4 / 0.6 * g.square().sum() / chosen))
    assert predicted_gain(g, torch.ones(5), 1.0) == 1.0


def test_bytes_are_declared():
    model, graph = small_model("gcn"), tiny()
    _, memory = bound(model, graph, Mvs())
    draw = memory.seeds
    held = memory.tables.nbytes + sum(
        t.numel() * t.element_size() for t in (draw.threshold, draw.prob, draw.weight)
    )
    assert Mvs().declare(model, graph) == held
    assert History().declare(model, graph) == memory.tables.nbytes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mvs(inner_steps=0), "inner_steps is 0"),
        (lambda: Mvs(share=0.0), "share is 0.0"),
        (lambda: Mvs(floor=0.0), "floor is 0.0"),
        (lambda: Mvs(unseen="last"), "unknown choice of unseen 'last'"),
        (lambda: Mvs(norm="all").check(small_model("gcn")), "unknown norm 'all'"),
        (lambda: Mvs().check(small_model("gat")), "the norm 'logits'"),
        (lambda: Mvs(mode="control", norm="logits").check(small_model("gat")), "control variate"),
        (
            lambda: Mvs().wrap(build_sampler("cluster")),
            "given the sampler Cluster; use the sampler",
        ),
        (lambda: Mvs().wrap(Induced(seeds="poisson")), "given seeds 'poisson'"),
        (lambda: Scored(3).bind(POOL).score(torch.ones(6), 0.0), "floor is 0.0"),
        (lambda: Scored(3).bind(POOL).score(torch.ones(5), 0.5), r"shape \(5,\)"),
        (lambda: Scored(7).bind(POOL), "batch_size is 7"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_it_is_there_by_name():
    assert build("mvs", inner_steps="5", share="0.1").inner_steps == 5
    Mvs().check(small_model("gat", head="linear"))


def test_gradients_stay_finite_where_scores_are_far_apart():
    model, graph = small_model("gcn"), tiny()
    where, memory = started(model, graph)
    memory.seeds.score(torch.tensor([1e30, 0, 0, 1e-30, 1, 0]), 0.1)
    assert float(memory.seeds.weight.max()) <= 1 / (0.1 * 3) * (1 + 1e-6)
    run(where, still(model), memory, range(4))
    assert all(bool(g.isfinite().all()) for g in gradient_of(model).values())
