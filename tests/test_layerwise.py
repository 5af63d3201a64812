"""Layer by layer in chunks: the logits of the full batch, for every model, from every kind of graph."""

import weakref
from itertools import product

import cases
import numpy as np
import oracles
import pytest
import torch

from graphdyn.errors import InputError
from graphdyn.evaluation import predict
from graphdyn.graph import Graph
from graphdyn.layerwise import population_moments, predict_layerwise
from graphdyn.models import GCN
from graphdyn.sweep import Chunk, Sweep, Table

CHUNKS = (1, 5, None)


def ready(name, graph, **options):
    """A model away from its initial values, whose batch norms have seen two kinds of rows."""
    model = cases.small_model(name, dropout=0.5, **options)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.1 * cases.seeded(*parameter.shape, seed=i)
    for step in range(2):
        model(cases.whole(graph, model, key=cases.Key(step)))
    return model


def compare(model, graph, statistics, chunk, tol=1e-12, **options):
    ours = predict_layerwise(model, graph, chunk=chunk, statistics=statistics, **options)
    theirs = predict(model, cases.whole(graph, model), statistics=statistics)
    assert ours.dtype == theirs.dtype
    cases.close(ours, theirs, tol)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("kind", ["directed", "parallel", "undirected", "empty"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_chunks_give_the_logits_of_the_full_batch(name, kind, chunk):
    graph = cases.tiny(kind)
    compare(ready(name, graph, norm="batch", skip="linear"), graph, "running", chunk)


def trunks():
    """Of each model one norm in six is quick, in turns; all are slow."""
    rows = []
    for i, model in enumerate(cases.MODELS):
        for j, (skip, order) in enumerate(product(cases.SKIPS, cases.ORDERS)):
            for k, norm in enumerate(cases.NORMS):
                if model == "gcnii" and skip == "initial":
                    continue
                quick = k == (i + j) % len(cases.NORMS)
                marks = () if quick else pytest.mark.slow
                rows.append(pytest.param(model, norm, skip, order, marks=marks))
    return rows


@pytest.mark.parametrize(("name", "norm", "skip", "order"), trunks())
def test_every_trunk_under_both_statistics(name, norm, skip, order):
    graph = cases.tiny()
    model = ready(name, graph, norm=norm, skip=skip, order=order)
    for statistics in ("running", "population"):
        compare(model, graph, statistics, 5)


@pytest.mark.parametrize("norm", ["batch", "weighted-batch", "graph", "pair"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_the_populations_statistics_equal_dense_algebra(name, norm):
    graph = cases.tiny("undirected")
    model = ready(name, graph, norm=norm, skip="linear")
    o = cases.settings(name, model)
    args = (graph.edge_index, graph.num_nodes, graph.x, cases.state(model), o)
    expected, _ = oracles.model(cases.MODELS[name][0], *args)
    ours = predict_layerwise(model, graph, chunk=4, statistics="population")
    cases.close(ours, expected.detach())
    if "batch" in norm and len(model.parameter_groups()["norm"]):
        assert not torch.allclose(ours, predict_layerwise(model, graph, chunk=4), atol=1e-3)


@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("head", ["conv", "linear"])
def test_both_heads(head, order):
    graph = cases.tiny()
    model = ready("gcn", graph, norm="batch", order=order, head=head, skip="identity")
    for statistics, chunk in product(("running", "population"), CHUNKS):
        compare(model, graph, statistics, chunk)


@pytest.mark.parametrize("skip", ["none", "identity", "linear"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_sparse_features(name, skip):
    graph = cases.tiny(sparse=True)
    model = ready(name, graph, skip=skip, hidden=6 if "gat" in name else cases.NUM_FEATURES)
    for chunk in CHUNKS:
        compare(model, graph, "running", chunk)


def test_float32_agrees_within_its_own_rounding():
    graph = cases.tiny(dtype=torch.float32)
    for name in cases.MODELS:
        model = cases.small_model(name, norm="batch").float()
        model(cases.whole(graph, model))
        compare(model, graph, "population", 5, tol=1e-5)


def test_memory_mapped_features(tmp_path):
    graph = cases.tiny()
    model = ready("sage-mean", graph)
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=tuple(graph.x.shape))
    mapped[:] = graph.x.numpy()
    expected = predict(model, cases.whole(graph, model))
    object.__setattr__(graph, "x", torch.from_numpy(mapped))
    cases.close(predict_layerwise(model, graph, chunk=3), expected)


@pytest.mark.parametrize("name", cases.MODELS)
def test_states_in_files_are_gone_afterwards(name, tmp_path, monkeypatch):
    graph, folder = cases.tiny(), tmp_path / "new" / "store"
    files = []
    empty = Table.empty

    def noted(rows, like, folder):
        table = empty(rows, like, folder)
        files.append(table.path)
        return table

    monkeypatch.setattr(Table, "empty", noted)
    model = ready(name, graph, norm="batch")
    compare(model, graph, "population", 5, store=folder)
    assert any(path is not None for path in files)
    assert list(folder.iterdir()) == []


class Alive:
    """How many tables there are at once, in memory or as files, counted whenever one is made."""

    def __init__(self, monkeypatch):
        self.tables, self.most = [], 0
        empty = Table.empty

        def noted(rows, like, folder):
            table = empty(rows, like, folder)
            self.tables.append((weakref.ref(table), table.path))
            self.most = max(self.most, sum(self.lives(*pair) for pair in self.tables))
            return table

        monkeypatch.setattr(Table, "empty", noted)

    @staticmethod
    def lives(table, path):
        return hasattr(table(), "rows") if path is None else path.exists()


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("gcn", {"layers": 6, "norm": "batch"}, 2),
        ("gcn", {"layers": 6, "order": "pre", "skip": "identity", "norm": "batch"}, 2),
        ("sgc", {"hops": 6}, 2),
        ("mlp", {"layers": 6}, 2),
        ("gcnii", {"layers": 6}, 3),
        ("gcn", {"layers": 6, "skip": "initial"}, 3),
        ("appnp", {"hops": 6}, 3),
        ("gcn", {"layers": 6, "skip": "dense-max"}, 7),
    ],
)
@pytest.mark.parametrize("kept", ["memory", "files"])
def test_two_tables_are_enough(name, options, most, kept, monkeypatch, tmp_path):
    graph, alive = cases.tiny(), Alive(monkeypatch)
    model = cases.small_model(name, **options)
    store = None if kept == "memory" else tmp_path
    predict_layerwise(model, graph, chunk=5, statistics="population", store=store)
    assert alive.most <= most
    assert alive.most == most or kept == "files"  # those as narrow as logits stay in memory


def test_nothing_of_the_model_is_read_but_its_values():
    """Neither the mode of the model nor anything in it changes, whatever the mode."""
    graph = cases.tiny()
    model = ready("gcn", graph, norm="batch")
    expected = predict_layerwise(model, graph, chunk=5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(predict_layerwise(model, graph, chunk=5), expected)
        assert all(m.training == mode for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def hub(nodes=200):
    """A star whose hub receives from all, and a ring."""
    ring = torch.arange(nodes)
    edges = torch.stack([torch.cat([ring, ring]), torch.cat([(ring + 1) % nodes, 0 * ring])])
    return Graph.from_edge_index(edges, nodes, x=cases.seeded(nodes, cases.NUM_FEATURES))


@pytest.mark.parametrize("chunk", [1, 7, 50, 199, 200, 1000])
def test_every_node_and_every_edge_is_in_one_chunk(chunk):
    graph = hub()
    matrix = graph.adjacency()
    n, mean = graph.num_nodes, -(-matrix.csc.num_edges // graph.num_nodes)
    sweep = Sweep(n, matrix, chunk=chunk, device=torch.device("cpu"))
    dense = matrix.to_dense()
    seen = 0
    for start, stop in zip(sweep.cuts, sweep.cuts[1:]):
        part = Chunk(sweep, start, stop)
        block = part.block
        ids = torch.arange(n) if block.node_id is None else block.node_id
        assert block.num_dst == stop - start <= chunk
        assert torch.equal(ids[: block.num_dst], torch.arange(start, stop)) or part.whole
        assert ids.unique().numel() == ids.numel()
        rows = torch.zeros(stop - start, n)
        rows[:, ids] = block.adjacency.to_dense()
        assert torch.equal(rows, dense[start:stop])
        edges = block.adjacency.csc.num_edges
        assert edges <= chunk * mean or stop - start == 1
        seen += edges
    assert sweep.cuts[0] == 0
    assert sweep.cuts[-1] == n
    assert seen == matrix.csc.num_edges


def test_moments_are_those_of_what_each_norm_reads():
    graph = cases.tiny()
    model = ready("gcn", graph, norm="batch")
    seen = {}
    for norm in model.norms:
        norm.register_forward_pre_hook(lambda m, args: seen.setdefault(m, args[0]))
    predict(model, cases.whole(graph, model), statistics="population")
    found = population_moments(model, graph, chunk=5)
    assert set(found) == set(model.norms)
    for norm, moments in found.items():
        cases.close(moments.mean, seen[norm].mean(0), 1e-12)
        cases.close(moments.var, seen[norm].var(0, correction=0), 1e-12)


def test_what_cannot_be_done_is_refused_in_words(tmp_path):
    graph, model = cases.tiny(), cases.small_model("gcn")
    with pytest.raises(InputError, match="chunk is 0"):
        predict_layerwise(model, graph, chunk=0)
    with pytest.raises(InputError, match="did you mean population"):
        predict_layerwise(model, graph, statistics="populaton")
    with pytest.raises(InputError, match="Linear is not made of layers"):
        predict_layerwise(torch.nn.Linear(3, 3), graph)
    with pytest.raises(InputError, match="has no features"):
        predict_layerwise(model, Graph.from_edge_index(cases.edge_list(), 12))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep states in"):
        predict_layerwise(model, graph, store=tmp_path / "file")
    with pytest.raises(InputError, match="takes 2 hops and gives no way"):
        predict_layerwise(_two_hops(), graph)


def _two_hops():
    model = GCN(cases.NUM_FEATURES, cases.NUM_CLASSES).double()
    model.convs[0].hops = 2
    return model
