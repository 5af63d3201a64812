"""Passes that only write: tables follow the weights, and nothing else notices."""

import pytest
import torch
from cases import small_model, tiny

import graphdyn as gd
from graphdyn import samplers
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.loader import gather
from graphdyn.memories import History, Preprocess, Setting
from graphdyn.memories.passes import exact_outputs
from graphdyn.memories.refresh import extra_batches
from graphdyn.step import train, update

CLUSTER = samplers.Cluster(parts=6, parts_per_batch=1, estimator="unit")
NEIGHBOR = samplers.Neighbor(fanouts=(2,), batch_size=2)


def bound(recipe, model, graph, sampler=CLUSTER):
    plans = recipe.wrap(sampler).prepare(graph, model.propagation, model.num_hops)
    memory = recipe.bind(Setting(model, graph, plans))
    memory.start()
    return plans, memory


def batch_of(plans, graph, step):
    key = Key(6).at(epoch=step // plans.num_batches, step=step)
    return gather(plans.plan(key), graph.x, graph.y)


def still(model):
    return torch.optim.SGD(model.parameters(), 0.0)


def error(memory, model, graph):
    """Largest distance of each table from the exact outputs."""
    exact = exact_outputs(model, graph)
    return [(rows - exact[hop]).abs().max().item() for hop, rows in memory.tables.rows.items()]


def test_tables_move_to_the_exact_outputs_in_fewer_steps():
    """Frozen weights: after l + 1 sweeps of the clusters the table of hop l is exact, pass by pass."""
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", layers=3).float()
    steps = {}
    for refresh in (0, 3):
        plans, memory = bound(History(start="zero", refresh=refresh), model, graph)
        for step in range(60):
            update(model, batch_of(plans, graph, step), still(model), memory=memory)
            if max(error(memory, model, graph)) < 1e-5:
                break
        steps[refresh] = step + 1
    assert steps[0] < 60
    assert steps[3] <= 2 + steps[0] / 3


def test_what_is_written_is_a_pass_over_the_extra_batches_alone():
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", layers=2).float().train()
    plans, memory = bound(History(start="zero", refresh=2), model, graph)
    batch = batch_of(plans, graph, 7)
    memory.pull(batch)
    extra = [plans.plan(batch.key.fold("refresh", j)) for j in range(2)]
    ids = torch.cat([p.blocks[0].node_id[: p.blocks[0].num_dst] for p in extra]).unique()
    written = torch.nonzero(memory.tables.written[0] == 7).flatten()
    assert torch.equal(ids, written)
    torch.testing.assert_close(  # hop 0 reads features alone, so its rows are exact
        memory.tables.rows[0][ids], exact_outputs(model, graph)[0][ids], rtol=1e-5, atol=1e-6
    )
    assert memory.tables.rows[0][memory.tables.written[0] < 0].abs().sum() == 0


def test_extra_batches_are_other_batches_and_the_same_every_time():
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", layers=2).float()
    plans, memory = bound(History(refresh=3), model, graph, NEIGHBOR)
    batch = batch_of(plans, graph, 1)
    one, two = (
        [b.seeds.tolist() for b in extra_batches(memory.setting, batch, 3)] for _ in range(2)
    )
    assert one == two
    assert len({tuple(s) for s in [*one, batch.seeds.tolist()]}) > 1
    over = [  # each stream is an epoch: every training node once
        sorted(
            seed
            for step in range(plans.num_batches)
            for seed in [*extra_batches(memory.setting, batch_of(plans, graph, step), 3)][
                j
            ].seeds.tolist()
        )
        for j in range(3)
    ]
    assert over == [sorted(graph.split.train.tolist())] * 3


@pytest.mark.parametrize("mode", ["control", "replace"])
@pytest.mark.parametrize("norm", ["batch", "weighted-batch", "graph"])
def test_they_leave_no_trace_but_in_the_tables(mode, norm):
    graph = tiny("undirected", dtype=torch.float32)
    sampler = NEIGHBOR if mode == "control" else CLUSTER
    found = []
    for refresh in (0, 3):
        model = small_model("gcn", norm=norm, dropout=0.5).float().train()
        plans, memory = bound(History(mode=mode, refresh=refresh), model, graph, sampler)
        model.train()
        buffers = {n: b.clone() for n, b in model.named_buffers()}
        state = torch.random.get_rng_state()
        batch = memory.pull(batch_of(plans, graph, 0))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
        assert all(p.grad is None for p in model.parameters())
        assert model.training
        found.append(batch)
    plain, fresh = found  # the batch itself is the same, but for what it remembers
    assert torch.equal(plain.x, fresh.x)
    assert plain.key == fresh.key
    assert torch.equal(plain.blocks[1].adjacency.csc.indices, fresh.blocks[1].adjacency.csc.indices)


def test_ages_shrink_and_the_cost_is_reported():
    graph = tiny("undirected", dtype=torch.float32)
    reports = {}
    for refresh in (0, 2):
        model = small_model("gcn", layers=2).float()
        plans, memory = bound(History(refresh=refresh), model, graph)
        spent = torch.zeros(2, dtype=torch.float64)
        for step in range(12):
            batch = batch_of(plans, graph, step)
            update(model, batch, still(model), memory=memory)
            for extra in extra_batches(memory.setting, batch, refresh):
                edges = sum(b.adjacency.csc.num_edges for b in extra.blocks)
                spent += torch.tensor([extra.x.shape[0], edges])
        reports[refresh] = memory.report()
        if refresh:
            assert reports[2]["refresh_nodes"] == spent[0]
            assert reports[2]["refresh_edges"] == spent[1]
    assert set(reports[0]) == {"history_age"}
    assert reports[2]["history_age"] < 0.7 * reports[0]["history_age"]
    assert memory.report() == {}


def test_ages_are_those_of_rows_that_training_reads():
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", layers=2).float().train()
    plans, memory = bound(History(refresh=3), model, graph)
    batch = memory.pull(batch_of(plans, graph, 0))
    assert memory.ages.counts[1] == batch.block(1).border.num_nodes


def test_refill_is_exact_every_so_many_steps():
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", norm="batch", dropout=0.5).float()
    plans, memory = bound(History(refill=4), model, graph)
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for step in range(9):
        model.train()
        batch = batch_of(plans, graph, step)
        memory.refresh(batch)
        off = max(error(memory, model, graph))
        assert off < 1e-5 if step % 4 == 0 else off > 1e-3
        update(model, batch, optimizer, memory=memory)
    # twice in each of steps 4 and 8: above, and in the step itself
    assert memory.report()["refresh_nodes"] == 4 * graph.num_nodes


def test_refresh_reads_what_preprocessing_put_in_place_of_features():
    graph = tiny("undirected", dtype=torch.float32)
    model = small_model("gcn", layers=2).float().train()
    recipe = History(start="zero", refresh=2)
    plans = Preprocess().wrap(recipe.wrap(CLUSTER)).prepare(graph, model.propagation, 2)
    memory = recipe.bind(Setting(model, graph, plans))
    memory.pull(gather(plans.plan(Key(1)), plans.features, graph.y))
    written = memory.tables.written[0] >= 0
    exact = exact_outputs(model, graph)[0]
    torch.testing.assert_close(memory.tables.rows[0][written], exact[written], rtol=1e-5, atol=1e-6)


def test_a_resumed_run_goes_on_to_the_bit():
    graph = tiny("undirected", dtype=torch.float32)

    def steps(model, plans, memory, first):
        loader = gd.Loader(plans, graph, key=Key(1), epochs=4, first=first)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return train(model, loader, optimizer, memory=memory, first=first)

    def fresh():
        model = small_model("gcn", dropout=0.5).float()
        return model, *bound(History(refresh=1, refill=3), model, graph)

    whole = fresh()
    run = steps(*whole, 0)
    losses = [next(run).loss.item() for _ in range(4)]
    kept = {n: t.clone() for n, t in whole[2].state().items()}
    weights = {n: t.clone() for n, t in whole[0].state_dict().items()}
    losses = [next(run).loss.item() for _ in range(4)]
    again = fresh()
    again[2].restore(kept)
    again[0].load_state_dict(weights)
    run = steps(*again, 4)
    assert [next(run).loss.item() for _ in range(4)] == losses
    assert again[2].report() == whole[2].report()


@pytest.mark.parametrize(("option", "value"), [("refresh", -1), ("refill", 0)])
def test_refusals(option, value):
    with pytest.raises(InputError, match=option):
        History(**{option: value})
