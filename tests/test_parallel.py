"""Data parallel: two real processes give what one gives with the doubled batch, and end together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import close, tiny
from ranks import ALIKE, CASES, KEY, RUN, islands, result
from safetensors.torch import load_file
from test_runner import assert_same_run, table

from graphdyn.config import Config
from graphdyn.errors import InputError, RecordError
from graphdyn.machine import pick_device
from graphdyn.memories.history import everyone
from graphdyn.models import GCN
from graphdyn.models.norms import synchronise
from graphdyn.parallel import World
from graphdyn.presets import method
from graphdyn.record import Record
from graphdyn.runner import run
from graphdyn.samplers import Cluster, Full, Ibmb, Labor, Ladies, Neighbor, RandomNode, SaintWalk
from graphdyn.samplers.seeds import Shuffle
from graphdyn.samplers.shares import bind_share
from graphdyn.whole import Whole

TWO = tuple(World(rank, 2, rank) for rank in range(2))


def launch(folder, what, seconds=300):
    """Two ranks under torchrun; what they said, and their exit code."""
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    script = Path(__file__).with_name("ranks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, *words, str(script), str(folder), what],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its processes, which are in sessions of their own
            raise
    return process.returncode, said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The folder in which two ranks have left their results."""
    folder = tmp_path_factory.mktemp("ranks")
    code, said = launch(folder, "cases")
    assert code == 0, said
    return folder


def of_ranks(folder, name):
    return [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_do_what_one_process_does_with_the_doubled_batch(ranks, name):
    found, expected = of_ranks(ranks, name)[0], result(CASES[name], World())
    assert found.keys() == expected.keys()
    for entry in expected.keys() - own(expected):
        tensor = expected[entry]
        close(found[entry], tensor, 1e-6)


@pytest.mark.parametrize("name", CASES | ALIKE)
def test_ranks_hold_the_same_bits(ranks, name):
    first, second = of_ranks(ranks, name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first.keys() - own(first))


def own(names):
    """Ages of what a rank has read, and what it has computed for refreshes, are its own."""
    return {n for n in names if n.endswith(("ages", "spent"))}


def test_exchanges(ranks):
    for rank, found in enumerate(notes(ranks)):
        assert found["gather"] == [[0, 5], [1, 5]]
        assert found["rows"] == [[0, 1]]
        assert found["sum"] == [2, 1]
        assert found["told"] == ["rank 0", ""]
        assert found["loss"] == 0.5
        assert found["grads"] == [[1.5, 3.0], [0.5, 0.5], None]
        assert found["same"][0].startswith("numbers of rank 1 differ from those of rank 0")
        text = ("rank 1 could not go on; see its message.", "only here")[rank]
        assert found["agreed"] == [text, rank == 0]


def notes(folder):
    return [json.loads((folder / f"notes-{rank}.json").read_text()) for rank in range(2)]


def test_a_run_of_two_ranks_is_one_run(ranks):
    summary = json.loads((ranks / "straight" / "summary.json").read_text())
    assert summary["ranks"] == 2
    assert summary["sampler_options"]["batch_size"] == 30
    assert summary["steps"] == [9]
    rows = table(ranks / "straight")
    assert len([r for r in rows if (r["name"], r["group"]) == ("loss", "step")]) == 9
    # Every edge that some rank read: about those of one process with the doubled batch, at least.
    alone = result_of_one(ranks)
    assert summary["edges"][0] >= alone["edges"][0]
    assert summary["steps"] == alone["steps"]
    losses, others = (
        [r["value"] for r in t if r["group"] == "step"] for t in (rows, table(ranks / "alone"))
    )
    assert losses == pytest.approx(others, rel=0.05)  # norms see rows of both ranks twice


def result_of_one(folder):
    return run(Config(**{**RUN, "batch_size": 60}, out=folder / "alone"))


def test_a_signal_to_one_rank_stops_all_at_the_same_step(ranks):
    text = "stopped at seed 0, epoch 1, step 4; the same command goes on from there."
    assert [found["stopped"] for found in notes(ranks)] == [[text, False], [text, True]]
    assert_same_run(ranks / "stopped", ranks / "straight")


def test_a_run_is_resumed_by_as_many_ranks_as_began_it(ranks):
    with pytest.raises(RecordError, match=r"holds a run of 2 rank\(s\), and here are 1"):
        run(Config(**RUN, out=ranks / "straight"))


def test_a_rank_that_dies_ends_the_run_which_goes_on_from_its_last_whole_step(ranks, tmp_path):
    code, said = launch(
        tmp_path, "dying"
    )  # which gives up long before the half hour of an exchange
    assert code != 0
    assert "graphdyn: rank 1 went away or does not answer" in said
    assert "at seed 0, epoch 1, step 4; the same command goes on from there." in said
    assert said.count("graphdyn: ") == 1
    record = Record.open(Config(**RUN, out=tmp_path / "killed"))
    _, state = record.load()
    record.close()
    assert (state["ranks"], state["seed"]["at"]["step"]) == (2, 4)

    code, said = launch(tmp_path, "again")
    assert code == 0, said
    assert_same_run(tmp_path / "killed", ranks / "straight")


def test_a_mark_holds_until_parameters_move():
    model = GCN(5, 3, hidden=4, norm="batch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = Whole(model, optimizer, TWO[0])
    whole.mark()
    before = model.norms[0].running_mean.clone()
    model.norms[0].running_mean.add_(1)
    assert whole.holds
    whole.restore()
    assert torch.equal(model.norms[0].running_mean, before)
    optimizer.step()
    assert not whole.holds


def test_of_a_node_that_two_ranks_computed_the_lower_one_is_remembered(monkeypatch):
    other = {
        torch.int64: torch.tensor([4, 2, 9]),
        torch.float32: torch.tensor([[40.0], [20], [90]]),
    }
    monkeypatch.setattr(World, "gather_rows", lambda _, rows: torch.cat([rows, other[rows.dtype]]))
    ids, rows = everyone(TWO[0], torch.tensor([7, 4, 3]), torch.tensor([[7.0], [4], [3]]))
    assert ids.tolist() == [2, 3, 4, 7, 9]
    assert rows.flatten().tolist() == [20, 3, 4, 7, 90]


def plans_of(sampler, graph, model):
    return [
        sampler.prepare(graph, model.propagation, model.num_hops, key=KEY, world=w) for w in TWO
    ]


def test_ranks_divide_the_seeds_of_one_draw():
    pool = torch.arange(100, 123)
    whole = Shuffle(10).bind(pool)
    shares = [bind_share(Shuffle(5), pool, world) for world in TWO]
    assert [share.num_batches for share in shares] == [whole.num_batches] * 2
    sizes = set()
    for step in range(30):
        key = KEY.at(epoch=step // 3, step=step)
        first, second = (share.draw(key) for share in shares)
        every = whole.draw(key)
        ids = torch.cat([first.node_id, second.node_id]).sort().values
        assert torch.equal(ids, every.node_id.sort().values)
        assert torch.all(first.weight == 2 * every.weight[0])
        assert torch.all(second.prob == every.prob[0] / 2)
        sizes.add(first.node_id.numel() - second.node_id.numel())
    assert {-1, 1} <= sizes <= {-1, 0, 1}  # no rank has the larger share for good


def mean_over_keys(plans, statistic, count=400):
    """Mean of a statistic of the plan over keys, with its standard error."""
    keys = [KEY.at(epoch=s // plans.num_batches, step=s) for s in range(count)]
    values = torch.stack([statistic(plans.plan(key)) for key in keys])
    return values.mean(0), values.std(0) / count**0.5


@pytest.mark.parametrize("seeds", ["shuffle", "uniform", "poisson"])
def test_the_loss_of_each_rank_is_unbiased(seeds):
    """Sum of weights times any function of the node, over many keys, is its mean: 5 standard errors."""
    graph, f = islands(7), torch.arange(28).double() ** 2
    sampler, truth = Neighbor(batch_size=2, fanouts=(1,), seeds=seeds), f[graph.split.train].mean()
    for plans in plans_of(sampler, graph, GCN(5, 3, layers=1)):
        mean, error = mean_over_keys(plans, lambda p: (p.seed_weight.double() * f[p.seeds]).sum())
        assert abs(mean - truth) <= 5 * error
        assert abs(mean - 1.5 * truth) > 5 * error  # a wrong weight would be seen


ESTIMATORS = {
    "node": RandomNode(batch_size=4),
    "cluster": Cluster(parts=5, parts_per_batch=2),
    "ladies": Ladies(batch_size=2, nodes=(3,)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_rows_of_each_rank_are_unbiased(name):
    """Weighted sum of one hop's rows at the seeds: what a loss that is linear in logits is made of."""
    graph = tiny("undirected")
    model = GCN(5, 3, layers=1)
    dense, train = graph.adjacency(model.propagation).to_dense().double(), graph.split.train
    truth = (dense @ graph.x)[train].mean(0)

    def rows(plan):
        (block,), csc = plan.blocks, plan.blocks[0].adjacency.csc
        messages = block.adjacency.values.double().unsqueeze(1)
        messages = messages * graph.x[block.node_id][csc.indices.long()]
        out = torch.zeros(block.num_dst, 5, dtype=torch.float64)
        out.index_add_(0, csc.dst.long(), messages)
        return plan.seed_weight.double() @ out[plan.rows]

    for plans in plans_of(ESTIMATORS[name], graph, model):
        mean, error = mean_over_keys(plans, rows)
        assert torch.all((mean - truth).abs() <= 5 * error + 1e-9)


def test_ranks_share_the_random_numbers_of_sources():
    """LABOR: the edges that two ranks draw are those of one process for all their seeds."""
    graph, model = tiny("undirected"), GCN(5, 3, layers=1)
    one = Labor(fanouts=(2,), batch_size=4).prepare(graph, model.propagation, 1, key=KEY)
    two = plans_of(Labor(fanouts=(2,), batch_size=2), graph, model)
    for step in range(12):
        key = KEY.at(epoch=step // one.num_batches, step=step)
        edges = [set(p.plan(key).blocks[0].edge_id.tolist()) for p in (one, *two)]
        assert edges[0] == edges[1] | edges[2]
        assert not edges[1] & edges[2]


@pytest.mark.parametrize("sampler", [Full(), SaintWalk(), Ibmb()])
def test_samplers_that_do_not_divide_a_step_are_refused(sampler):
    with pytest.raises(InputError, match="does not divide a step among 2 ranks"):
        sampler.prepare(tiny(), GCN.propagation, 2, world=TWO[0])


def test_what_is_not_defined_for_ranks_is_refused():
    graph, model = tiny("undirected"), GCN(5, 3, norm="graph")
    with pytest.raises(InputError, match="GraphNorm takes statistics over rows, and 2 ranks"):
        synchronise(model, TWO[0])
    for memory in ("spider", "mvs"):
        recipe = method(sampler="neighbor", memory=memory, batch_size=2)
        with pytest.raises(InputError, match="is not defined for 2 ranks"):
            recipe.check(GCN(5, 3), TWO[0])
    with pytest.raises(
        InputError, match="batch_size is 4 on each of 2 ranks, but there are 6 nodes"
    ):
        Neighbor(batch_size=4).prepare(graph, model.propagation, 2, world=TWO[0])
    with pytest.raises(InputError, match="is one GPU, but there are 2 ranks"):
        pick_device("cuda:0", TWO[0])


def test_the_world_is_what_the_launcher_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert World.here() == World()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert World.here() == World()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="WORLD_SIZE is 4, but RANK"):
        World.here()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert World.here() == World(3, 4, 1)
