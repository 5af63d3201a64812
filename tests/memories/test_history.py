"""Historical embeddings: exact where they should be, pure where nobody trains, resumed to the bit."""

from dataclasses import replace

import cases
import oracles
import pytest
import torch
from samplers.graphs import AWKWARD

from graphdyn import memories, models, samplers
from graphdyn.batch import full_batch
from graphdyn.errors import InputError
from graphdyn.evaluation import evaluate
from graphdyn.keys import Key
from graphdyn.loader import Loader, gather
from graphdyn.memories import Setting
from graphdyn.step import train, update

RUN = Key(4)
CLUSTER = ("cluster", {"parts": 4, "parts_per_batch": 1, "estimator": "unit"})
SEEDS = ("neighbor", {"fanouts": (1,), "batch_size": 3})
NAMES = [name for name in cases.MODELS if name != "mlp"]


def small(name, **options):
    options = {} if name == "appnp" else {"layers": 3} | options
    return cases.small_model(name, **options)


def bound(graph, model, sampler=CLUSTER, nodes=None, **options):
    """Memory and plans of a run; every node trains, so that an epoch pushes every row."""
    recipe = memories.build("history", **options)
    recipe.check(model)
    kind, own = sampler
    nodes = torch.arange(graph.num_nodes) if nodes is None else nodes
    plans = recipe.wrap(samplers.build(kind, **own)).prepare(
        graph, model.propagation, model.num_hops, nodes=nodes
    )
    memory = recipe.bind(Setting(model, graph, plans, RUN, nodes))
    memory.start()
    return memory, plans


def batches(plans, graph, epochs=1, start=0):
    for key in plans.keys(RUN, range(start, start + epochs)):
        yield gather(plans.plan(key), graph.x, graph.y)


def exact(model, graph):
    """(N, F) a hop in the model's present mode."""
    with torch.no_grad():
        return model(full_batch(graph, model.propagation)).hidden


def copy(memory):
    return {name: t.clone() for name, t in memory.state().items()}


def same(memory, kept):
    return all(torch.equal(t, kept[name]) for name, t in memory.state().items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_an_exact_start_fills_tables_with_what_the_papers_say(name, norm):
    graph, model = cases.tiny(), small(name, norm=norm, skip="identity", dropout=0.5)
    memory, _ = bound(graph, model)
    o = cases.settings(name, model)
    _, hidden = oracles.model(
        cases.MODELS[name][0], graph.edge_index, 12, graph.x, cases.state(model), o
    )
    assert sorted(memory.tables.rows) == list(range(model.num_hops - 1))
    for hop, table in memory.tables.rows.items():
        torch.testing.assert_close(table, hidden[hop].float(), rtol=1e-5, atol=1e-5)
        assert memory.tables.age(hop, torch.arange(12), 3).tolist() == [3] * 12


@pytest.mark.parametrize("sampler", [CLUSTER, SEEDS], ids=["cluster", "seeds"])
@pytest.mark.parametrize("name", NAMES)
def test_with_exact_tables_a_batch_is_the_full_graph(name, sampler):
    graph, model = cases.tiny("undirected"), small(name, skip="identity", norm="layer").eval()
    memory, plans = bound(graph, model, sampler)
    full = model(full_batch(graph, model.propagation)).logits
    for batch in batches(plans, graph):
        cases.close(model(memory.pull(batch)).logits[batch.rows], full[batch.seeds], 1e-5)


@pytest.mark.parametrize("graph_name", AWKWARD)
def test_a_control_variate_of_exact_tables_has_no_error_left(graph_name):
    graph = AWKWARD[graph_name]()
    model = models.build("gcn", 3, 3, hidden=4, layers=3, seed=1).double()
    full = model(full_batch(graph, model.propagation)).logits
    for sampler in (("neighbor", {"fanouts": (1,), "batch_size": 1}), ("node", {"batch_size": 1})):
        if graph_name != "single" and sampler[0] == "node":
            sampler = ("node", {"batch_size": 2})
        memory, plans = bound(graph, model, sampler, mode="control")
        for batch in batches(plans, graph):
            cases.close(model(memory.pull(batch)).logits[batch.rows], full[batch.seeds], 1e-5)


@pytest.mark.parametrize("name", ["gcn", "sage-mean", "gat", "sgc", "appnp", "gcnii"])
def test_under_frozen_weights_tables_become_exact_layer_by_layer(name):
    """From zeros: after epoch e the outputs of the first e hops are exact; after one, no others."""
    graph = AWKWARD["communities"]()
    kind, options = cases.MODELS[name]
    options = options | ({"hops": 5} if name in ("sgc", "appnp") else {"layers": 5})
    options |= {} if name == "appnp" else {"norm": "batch", "skip": "identity"}
    model = models.build(kind, 3, 3, hidden=4, seed=1, **options).double()
    with torch.no_grad():
        model(full_batch(graph, model.propagation))
    model.eval()
    memory, plans = bound(graph, model, start="zero")
    truth = exact(model, graph)
    hops = list(memory.tables.rows)
    assert len(hops) >= 3
    errors = []
    for epoch in range(len(hops)):
        for batch in batches(plans, graph, start=epoch):
            batch = memory.pull(batch)
            with torch.no_grad():
                memory.push(batch, model(batch))
        errors.append([float((memory.tables.rows[h] - truth[h]).abs().max()) for h in hops])
    for epoch, row in enumerate(errors):
        assert max(row[: epoch + 1]) < 1e-5
    assert all(error > 1e-3 for error in errors[0][1:])


@pytest.mark.parametrize("mode", ["control", "replace"])
def test_evaluation_leaves_everything_as_it_was(mode):
    graph = cases.tiny(dtype=torch.float32)
    model = small("gcn", norm="batch", dropout=0.4).float()
    memory, plans = bound(graph, model, SEEDS, mode=mode)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in train(model, batches(plans, graph), optimizer, memory=memory):
        pass
    kept, weights = copy(memory), {n: t.clone() for n, t in model.state_dict().items()}
    for options in ({}, {"statistics": "population"}, {"chunk": 5}):
        evaluate(model, graph, **options)
    assert same(memory, kept)
    assert all(torch.equal(t, weights[n]) for n, t in model.state_dict().items())
    assert model.training
    assert memory.report() != {}


def test_only_targets_are_written_and_every_hop_its_own():
    graph, model = cases.tiny("undirected"), small("gcn").eval()
    memory, plans = bound(graph, model, SEEDS, start="zero", nodes=torch.tensor([0, 3, 4]))
    batch = memory.pull(next(iter(batches(plans, graph))))
    batch = batch.at(batch.key.at(step=6))
    out = model(batch)
    memory.push(batch, out)
    for hop, table in memory.tables.rows.items():
        block = batch.block(hop)
        ids = block.node_id[: block.num_dst]
        assert torch.equal(table[ids], out.hidden[hop].detach().float())
        others = torch.ones(12, dtype=torch.bool)
        others[ids] = False
        assert others.any()
        assert table[others].count_nonzero() == 0
        assert memory.tables.age(hop, ids, 8).unique().tolist() == [2]


def test_ages_of_what_was_read_are_reported_once():
    graph, model = cases.tiny("undirected"), small("gcn").eval()
    memory, plans = bound(graph, model)
    batch = next(iter(batches(plans, graph)))
    memory.pull(batch.at(batch.key.at(step=5)))
    assert memory.report() == {"history_age": 5.0}
    assert memory.report() == {}


def test_momentum_and_precision_of_tables():
    graph, model = cases.tiny("undirected", dtype=torch.float32), small("gcn").float().eval()
    truth = exact(model, graph)
    rough, _ = bound(graph, model, dtype="bfloat16")
    for hop, table in rough.tables.rows.items():
        assert table.dtype == torch.bfloat16
        torch.testing.assert_close(table.float(), truth[hop], rtol=2**-8, atol=0)
    slow, plans = bound(graph, model, momentum=0.5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    batch = slow.pull(next(iter(batches(plans, graph))))
    block = batch.block(0)
    ids = block.node_id[: block.num_dst]
    slow.push(batch, model(batch))
    now = exact(model, graph)[0]
    assert (now - truth[0]).abs().max() > 0.1
    cases.close(slow.tables.rows[0][ids], ((now + truth[0]) / 2)[ids], 1e-5)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"mode": "control", "host": True}])
@pytest.mark.parametrize("name", ["gcn", "sage-mean", "sgc", "appnp"])
def test_declared_bytes_are_held(name, options):
    graph, model = cases.tiny(), small(name, skip="identity")
    memory, _ = bound(graph, model, **options)
    declared = memories.build("history", **options).declare(model, graph)
    tables = [t for name, t in memory.state().items() if name.split("-")[0] in ("rows", "written")]
    assert declared == sum(t.numel() * t.element_size() for t in tables) == memory.tables.nbytes


def small_run(graph, **options):
    model = small("gcn", norm="batch", dropout=0.4, skip="identity").float()
    memory, plans = bound(graph, model, SEEDS, **options)
    return model, torch.optim.Adam(model.parameters(), 0.01), memory, plans


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "control"},
        {"mode": "replace", "momentum": 0.7},
        {"start": "zero", "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(options):
    graph = cases.tiny("undirected", dtype=torch.float32)
    model, optimizer, memory, plans = small_run(graph, **options)
    every = list(batches(plans, graph, epochs=2))
    for i, batch in enumerate(every[:5]):
        update(model, batch, optimizer, memory=memory, index=i)
    kept = copy(memory)
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    moments = optimizer.state_dict() | {"state": _deep(optimizer.state_dict()["state"])}
    for i, batch in enumerate(every[5:], 5):
        update(model, batch, optimizer, memory=memory, index=i)
    again, second, other, _ = small_run(graph, **options)
    again.load_state_dict(weights)
    second.load_state_dict(moments)
    other.restore(kept)
    for i, batch in enumerate(every[5:], 5):
        update(again, batch, second, memory=other, index=i)
    assert same(other, memory.state())
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in again.state_dict().items())


def _deep(state):
    return {k: {n: t.clone() for n, t in entry.items()} for k, entry in state.items()}


@pytest.mark.parametrize("mode", ["control", "replace"])
def test_workers_change_no_batch(mode):
    graph = cases.tiny("undirected")
    model = small("gcn")
    _, plans = bound(graph, model, SEEDS, mode=mode)
    runs = []
    for workers in (0, 1, 3):
        with Loader(plans, graph, key=RUN, epochs=2, workers=workers) as loader:
            runs.append([[*batch.tensors()] for batch in loader])
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert all(map(torch.equal, a, b))


@pytest.mark.parametrize("mode", ["control", "replace"])
def test_one_hop_keeps_no_table(mode):
    graph, model = cases.tiny(), cases.small_model("gcn", layers=1).eval()
    memory, plans = bound(graph, model, SEEDS, mode=mode)
    assert memory.tables.rows == {}
    assert memories.build("history").declare(model, graph) == 0
    full = model(full_batch(graph, model.propagation)).logits
    for batch in batches(plans, graph):
        out = model(memory.pull(batch))
        memory.push(batch, out)
        cases.close(out.logits[batch.rows], full[batch.seeds], 1e-6)
    assert memory.report() == {}


def test_tables_read_where_they_are_kept():
    graph, model = cases.tiny(), small("gcn").eval()
    here, plans = bound(graph, model)
    there, _ = bound(graph, model, host=True)
    batch = next(iter(batches(plans, graph)))
    for a, b in zip(here.pull(batch).blocks[1:], there.pull(batch).blocks[1:]):
        assert all(map(torch.equal, a.border.states, b.border.states))


@pytest.mark.parametrize(("sampler", "pulls"), [(CLUSTER, [0, 1, 2, 3]), (SEEDS, None)])
def test_rows_that_skips_read_in_every_layer_are_pulled_once(monkeypatch, sampler, pulls):
    """Where a block serves all hops; borders of blocks of their own are others."""
    graph, model = cases.tiny("undirected"), small("gcn", skip="identity", layers=5)
    memory, plans = bound(graph, model, sampler)
    seen, pull = [], type(memory.tables).pull

    def count(self, hop, ids):
        seen.append(hop)
        return pull(self, hop, ids)

    monkeypatch.setattr(type(memory.tables), "pull", count)
    batch = memory.pull(next(batches(plans, graph)))
    assert sorted(seen) == (pulls or sorted(h for hop in range(1, 5) for h in range(hop)))
    for hop in range(1, 5):
        border = batch.block(hop).border
        for before, state in zip(range(hop), border.states, strict=True):
            expected = memory.tables.rows[before][batch.block(hop).border_id]
            assert torch.equal(state, expected)


def test_the_model_s_mode_and_gradients_are_left_alone():
    graph, model = cases.tiny(), small("gcn", norm="batch")
    model.convs[0].eval()
    before = [b.clone() for b in model.buffers()]
    bound(graph, model)
    assert model.training
    assert not model.convs[0].training
    assert all(map(torch.equal, before, model.buffers()))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["gat", "gatv2", "sage-max"])
def test_control_variates_are_refused_where_messages_are_not_summed(name):
    model = small(name)
    with pytest.raises(InputError, match="use mode 'replace'"):
        memories.build("history", mode="control").check(model)
    memories.build("history", mode="replace").check(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "contorl"}, "did you mean control"),
        ({"start": "warm"}, "start"),
        ({"dtype": "float16"}, "dtype"),
        ({"momentum": 0.0}, "momentum is 0.0"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"refresh": -1}, "refresh is -1"),
        ({"refill": 0}, "refill is 0"),
        ({"modus": "replace"}, "modus"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        memories.build("history", **options)


def test_samplers_that_leave_nothing_to_remember_are_refused():
    graph, model = cases.tiny(), small("gcn")
    for name in ("full", "shadow"):
        with pytest.raises(InputError, match="nothing to remember"):
            bound(graph, model, (name, {}))


def test_options_come_as_text():
    recipe = memories.build("history", mode="control", momentum="0.9", host="true")
    assert (recipe.mode, recipe.momentum, recipe.host) == ("control", 0.9, True)
    assert recipe == replace(recipe)
