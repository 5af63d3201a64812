"""The benchmarks of sampling run: graphs are exported as they are, absent peers are no failure."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graphdyn import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import graphs

    return graphs


def run(script, *words):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_exported_graph_reads_back_as_it_was(graphs, tmp_path):
    graph = load("csbm")
    folder = graphs.export(graph, tmp_path / "csbm")
    back = graphs.read(folder)
    assert torch.equal(back.edge_index, graph.edge_index)
    assert torch.equal(back.x, graph.x)
    assert torch.equal(back.y, graph.y)
    assert sorted(np.load(folder / "seeds.npy")) == graph.split.train.tolist()


def test_a_folder_of_another_graph_is_written_anew(graphs, tmp_path):
    graphs.export(graphs.power_law(500), tmp_path)
    graphs.export(graphs.power_law(400), tmp_path)
    assert graphs.read(tmp_path).num_nodes == 400


def test_sampling_without_peers_is_measured_and_says_so(graphs, tmp_path):
    graphs.export(load("csbm"), tmp_path / "arxiv")
    for name in ("power-law", "power-law-small"):
        graphs.export(graphs.power_law(300), tmp_path / name)
    few = ["--rounds", 1, "--batches", 2, "--batch-size", 16, "--epochs", 2, "--out", tmp_path]
    parts = ["--parts", "compare", "resident", "--cases", "neighbor, arxiv"]
    out = run("sampling.py", "--folder", tmp_path, *few, *parts)
    results = json.loads((tmp_path / "sampling.json").read_text())["results"]
    rows = results["compare"]["neighbor, arxiv"]
    assert rows["graphdyn"]["edges_per_second"] > 0
    assert rows["graphbolt"] == rows["torch-sparse"] == {"absent": True}
    assert len(results["resident"]) == 2
    assert "absent" in out


def test_a_sampled_epoch_without_peers_is_measured(graphs, tmp_path):
    graphs.export(load("csbm"), tmp_path / "arxiv")
    few = ["--rounds", 1, "--batches", 2, "--batch-size", 16, "--threads", 1, "--out", tmp_path]
    run("epoch_sampled.py", "--folder", tmp_path, *few)
    results = json.loads((tmp_path / "epoch_sampled.json").read_text())["results"]
    assert list(results) == ["graphdyn"]
    assert results["graphdyn"]["seconds"] > 0


def draw_hops(indptr, indices, seeds, fanouts, rng):
    """Each node is expanded once, in the order it is met; (nodes, row, col, nodes per hop, edges per hop)."""
    nodes, row, col = list(seeds), [], []
    per_hop, edges, begin = [len(seeds)], [], 0
    for k in fanouts:
        end, before = len(nodes), len(row)
        for i in range(begin, end):
            around = indices[indptr[nodes[i]] : indptr[nodes[i] + 1]]
            for u in rng.permutation(around)[:k]:
                nodes += [] if u in nodes else [u]
                row.append(nodes.index(u))
                col.append(i)
        begin = end
        per_hop.append(len(nodes) - end)
        edges.append(len(row) - before)
    return len(nodes), np.array(row, np.int32), np.array(col, np.int32), per_hop, edges


@pytest.mark.parametrize("seeds", [[3, 9, 7], [7], list(range(20))])
def test_pyg_at_its_best_computes_what_pyg_as_documented_does(seeds, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    import pyg_batches
    import pyg_epoch

    rng = np.random.default_rng(0)
    degree = rng.integers(0, 12, 300)
    degree[7] = 0
    indptr = np.concatenate([[0], degree.cumsum()])
    indices = rng.integers(0, 300, indptr[-1])
    size, row, col, per_hop, edges = draw_hops(indptr, indices, seeds, [4, 3, 2], rng)
    found = pyg_batches.hops(len(seeds), 3, row, col)
    assert [found[0].tolist(), found[1].tolist()] == [per_hop, edges]
    batch = {"row": row, "col": col, "nodes_per_hop": per_hop, "edges_per_hop": edges}
    x = torch.from_numpy(rng.standard_normal((size, 6), np.float32))
    whole = [(size, torch.from_numpy(np.stack([row, col])).long())] * 3
    net = pyg_epoch.Net([6, 8, 8, 3], "mean").eval()
    summed = pyg_epoch.Net([6, 8, 8, 3], "sum").eval()
    summed.load_state_dict(net.state_dict())
    for adj in pyg_epoch.ADJ:
        for shape in ("trim", "bipartite"):
            layers = pyg_epoch.layers_of(batch, argparse.Namespace(adj=adj, shape=shape), 3)
            out = (summed if adj == "csr-sum" else net)(x, layers)
            assert torch.allclose(out[: len(seeds)], net(x, whole)[: len(seeds)], atol=1e-5)
