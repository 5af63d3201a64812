"""LMC: gradients by enumeration and by hand in dense algebra, fixed points, what is kept and what is not."""

from itertools import product

import pytest
import torch
from cases import close, small_model, state, tiny, whole
from oracles import adjacency

from graphdyn import memories
from graphdyn.data import load
from graphdyn.errors import InputError
from graphdyn.evaluation import evaluate
from graphdyn.gradient import gradient
from graphdyn.keys import Key
from graphdyn.loader import Loader, gather
from graphdyn.loss import node_loss
from graphdyn.memories import Setting
from graphdyn.models import build as build_model
from graphdyn.optim import build_optimizer
from graphdyn.presets import method
from graphdyn.samplers import build as build_sampler
from graphdyn.samplers.subgraph import Members
from graphdyn.step import train, update

NODE = {"batch_size": 4, "estimator": "unit"}
SKIPS = [("none", "post"), ("identity", "post"), ("identity", "pre"), ("initial", "post")]
SKIPS += [("linear", "post"), ("dense-cat", "post"), ("dense-max", "pre"), ("initial", "pre")]


def bound(graph, model, sampler="node", options=NODE, *, name="lmc", nodes=None, **memory):
    """Plans and a memory that has started."""
    recipe = memories.build(name, **memory)
    recipe.check(model)
    plans = recipe.wrap(build_sampler(sampler, **options)).prepare(
        graph, model.propagation, model.num_hops, nodes=nodes
    )
    out = recipe.bind(Setting(model, graph, plans, nodes=nodes))
    out.start()
    return plans, out


def gradient_of(model, batch, memory):
    """The gradient of one batch, as training sees it; tables and parameters stay."""
    model.train()
    model.zero_grad(set_to_none=True)
    batch = memory.pull(batch)
    output = model(batch)
    value = node_loss(output.logits, batch)
    memory.watch(output)
    value.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in state(model).items()}


def epoch_mean(model, graph, plans, memory):
    """The mean gradient of an epoch's batches under frozen weights and tables."""
    batches = [*Loader(plans, graph, key=Key(1), workers=0)]
    found = [gradient_of(model, batch, memory) for batch in batches]
    return {n: sum(g[n] for g in found) / len(found) for n in found[0]}


def error(found, truth):
    """The largest relative error of a parameter."""
    return max(
        float((found[n].double() - truth[n].double()).norm() / truth[n].double().norm().clamp(1e-9))
        for n in truth
    )


# --- the gradient with exact tables


def models():
    """Every model by skip, depth and graph; other graphs and depths for two of the skips."""
    for name, skip in product(["gcn", "sage-mean", "sage-sum", "gcnii"], SKIPS):
        if name == "gcnii" and skip[0] == "initial":
            continue  # it is its own initial residual
        yield name, *skip, 3, "directed"
        if skip in SKIPS[:2]:
            yield from ((name, *skip, layers, "directed") for layers in (1, 2, 4))
            yield from ((name, *skip, 3, kind) for kind in ("parallel", "undirected"))


@pytest.mark.parametrize(("name", "skip", "order", "layers", "kind"), [*models()])
def test_batches_add_up_to_the_full_gradient(name, skip, order, layers, kind):
    options = {"skip": skip, "order": order, "layers": layers}
    graph, model = tiny(kind), small_model(name, norm="layer", **options)
    for p in model.parameters():  # biases start at 0 and affines at 1: neither would show much
        p.data += 0.1 * torch.arange(p.numel()).reshape(p.shape).cos()
    plans, memory = bound(graph, model, beta=0.0)
    truth = gradient(model, whole(graph, model))
    assert any("bias" in n for n in truth)
    assert error(epoch_mean(model, graph, plans, memory), truth) < 1e-5


@pytest.mark.parametrize("name", ["gcn", "sage-mean", "gcnii"])
@pytest.mark.parametrize("layers", [2, 3])
def test_histories_of_outputs_alone_do_not(name, layers):
    graph, model = tiny(dtype=torch.float32), small_model(name, layers=layers).float()
    truth = gradient(model, whole(graph, model))
    plans, gas = bound(graph, model, name="history")
    assert error(epoch_mean(model, graph, plans, gas), truth) > 0.05
    plans, lmc = bound(graph, model, beta=0.0)
    assert error(epoch_mean(model, graph, plans, lmc), truth) < 1e-5


@pytest.mark.parametrize(("name", "skip"), [("gcn", "none"), ("gcn", "initial"), ("gcnii", "none")])
def test_every_table_matters(name, skip):
    graph, model = tiny(), small_model(name, layers=4, skip=skip)
    truth = gradient(model, whole(graph, model))
    plans, memory = bound(graph, model, beta=0.0)
    for tables in (memory.outputs, memory.gradients):
        for table in tables.rows.values():
            kept = table.clone()
            table.zero_()
            assert error(epoch_mean(model, graph, plans, memory), truth) > 1e-3
            table.copy_(kept)


def test_the_own_loss_of_the_halo_is_part_of_it(monkeypatch):
    graph, model = tiny(), small_model("gcn", layers=2)
    truth = gradient(model, whole(graph, model))
    plans, memory = bound(graph, model, beta=0.0)
    memory.is_seed[:] = False
    assert error(epoch_mean(model, graph, plans, memory), truth) > 0.01


def test_what_the_halo_says_to_biases_is_found_out(monkeypatch):
    from graphdyn.models import halo

    plain = halo.attribute

    def with_halo(module, weight, args):
        return plain(module, torch.where(weight > 0, weight, weight.max()), args)

    monkeypatch.setattr(halo, "attribute", with_halo)
    graph, model = tiny(), small_model("gcn", layers=2)
    plans, memory = bound(graph, model, beta=0.0)
    assert (
        error(epoch_mean(model, graph, plans, memory), gradient(model, whole(graph, model))) > 0.05
    )


def test_unequal_probabilities_are_unbiased_by_enumeration():
    """All pairs of GraphSAINT's node sampler, each by its probability."""
    graph, model = tiny("undirected"), small_model("gcn", layers=2)
    plans, memory = bound(graph, model, "saint-node", {"budget": 2}, beta=0.0)
    q = plans.base.design.prob
    assert float(q.max() / q.min()) > 1.5
    total = dict.fromkeys(state(model), 0.0)
    for u, v in product(range(12), repeat=2):
        members = Members(torch.tensor(sorted({u, v})), 2)
        plans.base.draw = lambda key, members=members: members
        batch = gather(plans.plan(Key(0)), graph.x, graph.y)
        for name, g in gradient_of(model, batch, memory).items():
            total[name] = total[name] + float(q[u] * q[v]) * g
    assert error(total, gradient(model, whole(graph, model))) < 1e-5


def test_nodes_of_a_given_pool():
    graph, model = tiny(), small_model("gcn", layers=2)
    nodes = torch.tensor([1, 4, 5])
    plans, memory = bound(graph, model, nodes=nodes, beta=0.0)
    truth = gradient(model, whole(graph, model, nodes))
    assert error(epoch_mean(model, graph, plans, memory), truth) < 1e-5


def test_labels_of_many_classes():
    graph, model = tiny(task="multilabel"), small_model("gcn", layers=2)
    plans, memory = bound(graph, model, beta=0.0)
    assert (
        error(epoch_mean(model, graph, plans, memory), gradient(model, whole(graph, model))) < 1e-5
    )


def test_sparse_features():
    graph, model = tiny(sparse=True), small_model("gcn", layers=2)
    plans, memory = bound(graph, model, beta=0.0)
    assert (
        error(epoch_mean(model, graph, plans, memory), gradient(model, whole(graph, model))) < 1e-5
    )


@pytest.mark.parametrize("name", ["batch", "weighted-batch", "graph", "pair"])
def test_one_batch_of_all_nodes_is_the_full_graph_under_every_norm(name):
    graph, model = tiny(), small_model("gcn", norm=name)
    plans, memory = bound(
        graph, model, options={"batch_size": 12, "estimator": "unit"}, start="zero"
    )
    truth = gradient(model.train(), whole(graph, model))
    assert error(epoch_mean(model, graph, plans, memory), truth) < 1e-5


# --- the formula, by hand


def by_hand(a, x, p, tables, passed, batch, share, weight, y, seeds):
    """Forward, backward and tables of GCN on one batch, in loops over layers; no autograd.

    Tables are lists of (N, F), of outputs for L layers, of gradients for those after the first and before the
    last; ``share`` is (N,).
    """
    n, layers = a.shape[0], len(p)
    near = (a[batch] != 0).any(0) | (a[:, batch] != 0).any(1)
    near[batch] = True
    halo = near.clone()
    halo[batch] = False
    inner = a * near[:, None] * near[None, :]
    h, read, outs = x, [], []
    for layer, (w, b) in enumerate(p):
        z = inner @ h @ w.t() + b
        blended = (1 - share)[:, None] * tables[layer] + share[:, None] * z
        z = torch.where(halo[:, None], blended, z)
        read.append(h)
        outs.append(z)
        h = z.clamp(min=0)
    probability = outs[-1].softmax(1) - torch.nn.functional.one_hot(y, outs[-1].shape[1])
    v = torch.zeros_like(outs[-1])
    v[seeds] = probability[seeds] / len(seeds)
    v = v * near[:, None]
    kept, grads = [], []
    own = torch.zeros(n, dtype=torch.float64)
    own[batch] = weight
    for layer in range(layers - 1, -1, -1):
        if layer < layers - 1:
            v = v * (outs[layer] > 0)
        if 0 < layer < layers - 1:
            kept.insert(0, v.clone())
            blended = (1 - share)[:, None] * passed[layer - 1] + share[:, None] * v
            v = torch.where(halo[:, None], blended, v)
        grads.insert(0, ((own[:, None] * v).t() @ (inner @ read[layer]), (own[:, None] * v).sum(0)))
        v = inner.t() @ v @ p[layer][0]
    return outs, kept, grads


@pytest.mark.parametrize("layers", [2, 4])
@pytest.mark.parametrize(
    ("beta", "score"), [(0.0, "const"), (1.0, "const"), (0.6, "linear"), (0.8, "concave")]
)
def test_a_step_is_the_formula(layers, beta, score):
    graph, model = tiny("undirected"), small_model("gcn", layers=layers)
    plans, memory = bound(graph, model, beta=beta, score=score)
    rng = torch.Generator().manual_seed(4)
    for table in (*memory.outputs.rows.values(), *memory.gradients.rows.values()):
        table.copy_(torch.randn(table.shape, generator=rng))
    tables = [t.double().clone() for t in memory.outputs.rows.values()]
    passed = [t.double().clone() for t in memory.gradients.rows.values()]
    a = adjacency(graph.edge_index, 12)
    p = [(c.lin.weight.detach().clone(), c.lin.bias.detach().clone()) for c in model.convs]
    batch = next(iter(Loader(plans, graph, key=Key(2), workers=0)))
    block = batch.blocks[0]
    inside = block.node_id[: block.halo.num_inside]
    near = torch.zeros(12, dtype=torch.bool)
    near[block.node_id] = True
    part = (a * near).sum(1) / a.sum(1)
    share = beta * {"const": part**0, "linear": part, "concave": part * (2 - part)}[score]
    seeds = graph.split.train
    weight = torch.full((len(inside),), 3.0, dtype=torch.float64)
    args = (tables, passed, inside, share, weight, graph.y, seeds)
    outs, kept, grads = by_hand(a, graph.x, p, *args)
    update(model, batch, torch.optim.SGD(model.parameters(), lr=0.1), memory=memory)
    for conv, (w, b) in zip(model.convs, grads, strict=True):
        close(conv.lin.weight.grad, w, tol=1e-5)
        close(conv.lin.bias.grad, b, tol=1e-5)
    outside = torch.ones(12, dtype=torch.bool)
    outside[inside] = False
    for found, old, new in (
        *zip(memory.outputs.rows.values(), tables, outs, strict=True),
        *zip(memory.gradients.rows.values(), passed, kept, strict=True),
    ):
        close(found[inside].double(), new[inside], tol=1e-5)
        close(found[outside].double(), old[outside])


# --- fixed point


@pytest.mark.parametrize("name", ["gcn", "sage-mean", "gcnii"])
def test_under_frozen_weights_tables_become_exact_layer_by_layer(name):
    graph, model = tiny(), small_model(name, layers=3, skip="identity", order="pre")
    plans, memory = bound(graph, model, beta=0.0, start="zero")
    _, exact = bound(graph, model, beta=0.0)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    clean = []
    for epoch in range(5):
        for batch in Loader(plans, graph, epochs=range(epoch, epoch + 1), workers=0):
            update(model, batch, still, memory=memory)
        tables = (memory.outputs, exact.outputs), (memory.gradients, exact.gradients)
        clean.append(
            [
                torch.allclose(mine.rows[hop], true.rows[hop], rtol=1e-5, atol=1e-6)
                for mine, true in tables
                for hop in mine.rows
            ]
        )
    # z1, z2, z3 one epoch each; the loss reads z3 of the halo, then V2, then V1.
    assert [c[0] for c in clean] == [True] * 5
    assert [c[1] for c in clean[1:]] == [True] * 4
    assert [c[2] for c in clean[2:]] == [True] * 3
    assert all(clean[4])
    assert not any(clean[0][1:])
    assert not clean[2][3]
    truth = gradient(model.train(), whole(graph, model))
    assert error(epoch_mean(model, graph, plans, memory), truth) < 1e-5


# --- norms, evaluation, state


def test_statistics_are_those_of_the_batch():
    graph, model = tiny(), small_model("gcn", norm="batch", layers=2)
    plans, memory = bound(graph, model, start="zero")
    memory.outputs.rows[0] += 1e3  # in the halo, and read there
    batch = next(iter(Loader(plans, graph, workers=0)))
    block = batch.blocks[0]
    z = adjacency(graph.edge_index, 12) @ graph.x @ model.convs[0].lin.weight.t()
    z = (z + model.convs[0].lin.bias)[block.node_id[: block.halo.num_inside]]
    update(model, batch, torch.optim.SGD(model.parameters(), lr=0.0), memory=memory)
    close(model.norms[0].running_mean, 0.1 * z.mean(0).detach())
    close(model.norms[0].running_var, 0.9 + 0.1 * z.var(0).detach())
    # Tables hold what stands before the norm.
    close(memory.outputs.rows[0][block.node_id[: len(z)]].double(), z.detach())


def run(graph, memory_options, epochs, *, look=False, resume=None, **options):
    """Losses, weights and the memory after some epochs."""
    model = small_model("gcn", layers=3, dropout=0.3, norm="batch", **options)
    plans, memory = bound(graph, model, **memory_options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = 0
    if resume is not None:
        weights, tables, first = resume
        model.load_state_dict(weights)
        memory.restore(tables)
    losses = []
    loader = Loader(plans, graph, epochs=range(first, epochs), workers=0)
    for step in train(model, loader, optimizer, memory=memory):
        losses.append(step.loss)
        if look:
            evaluate(model, graph, statistics="population")
    return torch.stack(losses), model, memory


def test_evaluation_changes_nothing_that_training_reads():
    graph = tiny()
    plain, seen = (run(graph, {}, 3, look=look) for look in (False, True))
    assert torch.equal(plain[0], seen[0])
    for (name, mine), other in zip(plain[2].state().items(), seen[2].state().values(), strict=True):
        assert torch.equal(mine, other), name


def test_a_resumed_run_goes_on_as_the_other():
    graph = tiny()
    whole_run = run(graph, {"beta": 0.3}, 4)
    _, model, memory = run(graph, {"beta": 0.3}, 2)
    saved = {n: t.clone() for n, t in memory.state().items()}
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    rest = run(graph, {"beta": 0.3, "start": "zero"}, 4, resume=(weights, saved, 2))
    assert torch.equal(whole_run[0][-len(rest[0]) :], rest[0])
    for name, table in whole_run[2].state().items():
        assert torch.equal(table, rest[2].state()[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "layers"), [("gcn", 1), ("gcn", 3), ("gcnii", 2)])
def test_bytes_are_as_declared(name, layers, dtype):
    graph, model = tiny(), small_model(name, layers=layers)
    recipe = memories.build("lmc", dtype=dtype)
    _, memory = bound(graph, model, dtype=dtype)
    held = memory.outputs.nbytes + memory.gradients.nbytes
    assert recipe.declare(model, graph) == held
    assert held == sum(
        t.numel() * t.element_size() for name, t in memory.state().items() if name != "ages"
    )
    assert len(memory.outputs.rows) == layers
    assert [*memory.gradients.rows] == [*range(0 if name == "gcnii" else 1, layers - 1)]


def test_where_tables_start():
    graph, model = tiny(), small_model("gcn", layers=3)
    filled = {}
    for start in ("exact", "forward", "zero"):
        _, memory = bound(graph, model, start=start)
        filled[start] = (bool(memory.outputs.rows[0].any()), bool(memory.gradients.rows[1].any()))
        assert all(p.grad is None for p in model.parameters())
    assert filled == {"exact": (True, True), "forward": (True, False), "zero": (False, False)}


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_an_exact_start_is_what_a_batch_of_all_nodes_leaves(norm):
    graph, model = tiny(), small_model("gcn", layers=3, norm=norm)
    everybody = {"batch_size": 12, "estimator": "unit"}
    _, exact = bound(graph, model, options=everybody)
    plans, memory = bound(graph, model, options=everybody, start="zero")
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    update(model, next(iter(Loader(plans, graph, workers=0))), still, memory=memory)
    for mine, true in (memory.outputs, exact.outputs), (memory.gradients, exact.gradients):
        for hop, table in mine.rows.items():
            close(table, true.rows[hop])


def test_report_is_the_mean_age_of_the_halo():
    graph, model = tiny(), small_model("gcn", layers=2)
    plans, memory = bound(graph, model)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    written, ages = dict.fromkeys(range(12), 0), []
    for batch in Loader(plans, graph, epochs=2, workers=0):
        block, step = batch.blocks[0], batch.key.step
        inside = block.halo.num_inside
        ages += [step - written[v] for v in block.node_id[inside:].tolist()]
        written |= dict.fromkeys(block.node_id[:inside].tolist(), step)
        update(model, batch, still, memory=memory)
    assert memory.report() == {"history_age": pytest.approx(sum(ages) / len(ages))}
    assert memory.report() == {}


def test_without_the_memory_a_batch_has_a_gradient_of_the_right_size():
    """Plans alone: rows of the halo count as they are computed, parameters hear of the batch."""
    graph, model = tiny(), small_model("gcn", layers=1)
    plans, _ = bound(graph, model)
    found = [gradient(model, b) for b in Loader(plans, graph, workers=0)]
    mean = {n: sum(g[n] for g in found) / len(found) for n in found[0]}
    assert error(mean, gradient(model, whole(graph, model))) < 1e-5


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("appnp", "not made of these"),
        ("sgc", "not made of these"),
        ("mlp", "not made of these"),
        ("gat", "attends"),
        ("gatv2", "attends"),
        ("sage-max", "maximum"),
    ],
)
def test_models_for_which_it_is_not_defined(name, why):
    with pytest.raises(InputError, match=why):
        memories.build("lmc").check(small_model(name))


@pytest.mark.parametrize(
    "options",
    [{"start": "warm"}, {"dtype": "int8"}, {"beta": 2}, {"score": "square"}, {"part": "x"}],
)
def test_options_out_of_range(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"{name}.* .?{value}"):
        memories.build("lmc", **options)


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ("lmc+history", "halo or a border"),
        ("history+lmc", "draws no subgraph"),
        ("lmc+preprocess", "without 'preprocess'"),
        ("lmc+svrg", "composed while a step"),
        ("spider+lmc", "composed while a step"),
        ("lmc+output", "without halo"),
    ],
)
def test_memories_that_it_does_not_go_with(memory, why):
    graph, model = tiny(), small_model("gcn")
    with pytest.raises(InputError, match=why):
        plans, bound = method(sampler="node", memory=memory, **NODE).prepare(model, graph)
        bound.start()
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        for _ in train(model, Loader(plans, graph, workers=0), still, memory=bound):
            pass


@pytest.mark.parametrize("memory", ["lmc+svrg", "spider+lmc"])
def test_an_anchor_is_refused_before_anything_is_trained(memory):
    with pytest.raises(InputError, match="composed while a step"):
        method(sampler="node", memory=memory, **NODE).prepare(small_model("gcn"), tiny())


@pytest.mark.dataset
def test_it_learns_cora(data_root):
    graph = load("cora", root=data_root)
    model = build_model(
        "gcn", graph.num_features, graph.num_classes, hidden=16, dropout=0.5, seed=0
    )
    parts = {"parts": 10, "parts_per_batch": 2, "estimator": "unit"}
    plans, memory = bound(graph, model, "cluster", parts, score="concave", beta=0.5)
    optimizer = build_optimizer(model, "adam", lr=0.01, weight_decay=5e-4)
    for _ in train(model, Loader(plans, graph, epochs=20, workers=0), optimizer, memory=memory):
        pass
    assert evaluate(model, graph).metric["test"] > 0.78
