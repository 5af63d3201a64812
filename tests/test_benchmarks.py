"""The benchmarks of sampling run: graphs are exported as they are, absent peers are no failure."""

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
