"""The GPU gives the CPU's numbers: kernels, masks, models, a run. Skipped where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphdyn.batch import full_batch
from graphdyn.config import Config
from graphdyn.data import csbm
from graphdyn.kernels import dropout, edge_softmax, segment_max, spmm
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.models import MODELS, build
from graphdyn.runner import run

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def graph():
    return csbm(500, num_classes=3, num_features=16, split="random-20x60x60", key=Key(1))


@pytest.mark.gpu
def test_keys_and_masks_are_the_same_bits(graph):
    ids, x = torch.arange(1000), torch.ones(1000, 33)
    key = Key(3).fold("x")
    assert torch.equal(key.hash(ids), key.hash(ids.cuda()).cpu())
    assert torch.equal(key.permutation(1000), key.permutation(1000, "cuda").cpu())
    assert torch.equal(key.integers(ids, 7), key.integers(ids.cuda(), 7).cpu())
    assert torch.equal(dropout(x, 0.3, key.bits), dropout(x.cuda(), 0.3, key.bits).cpu())


@pytest.mark.gpu
def test_kernels_agree(graph):
    matrix = graph.adjacency()
    x = torch.randn(500, 16, generator=Key(0).generator())
    logits = torch.randn(matrix.csc.num_edges, 4, generator=Key(1).generator())
    there = matrix.to("cuda")
    torch.testing.assert_close(spmm(there, x.cuda()).cpu(), spmm(matrix, x))
    torch.testing.assert_close(segment_max(there.csc, x.cuda()).cpu(), segment_max(matrix.csc, x))
    torch.testing.assert_close(
        edge_softmax(there.csc, logits.cuda()).cpu(), edge_softmax(matrix.csc, logits)
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(MODELS))
def test_models_agree_with_dropout_on(graph, name):
    def gradients(device):
        here = graph.to(device)
        model = build(name, 16, 3, dropout=0.5, input_dropout=0.2, seed=2).to(device)
        batch = full_batch(here, model.propagation, key=Key(4))
        logits = model(batch).logits
        node_loss(logits, batch).backward()
        return [
            logits.detach().cpu(),
            *(p.grad.cpu() for p in model.parameters() if p.grad is not None),
        ]

    for here, there in zip(gradients("cpu"), gradients("cuda"), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
def test_a_deterministic_run_repeats_to_the_bit(tmp_path):
    options = {"dataset": "csbm", "epochs": 10, "device": "cuda", "deterministic": True}
    first = run(Config(**options, out=tmp_path / "a"))
    second = run(Config(**options, out=tmp_path / "b"))
    assert first["test"] == second["test"]


def test_the_gpu_check_runs_from_the_source_tree():
    """On the CPU here, so that the script cannot rot where no GPU is."""
    command = [sys.executable, str(REPO / "benchmarks" / "gpu.py"), "--device", "cpu", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "copy bandwidth" in done.stdout
    assert "WRONG" not in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs the absence of a CUDA device")
def test_the_gpu_check_without_a_gpu_is_one_sentence():
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "gpu.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
