"""The edges among nodes: Numba and torch against plain loops, with groups, threads and all scratch."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from kernels.cases import random_pattern

from graphdyn.kernels import torch_induced
from graphdyn.kernels.draw import Workspace, relabel
from graphdyn.kernels.induced import induced
from graphdyn.sparse import CSC, compress

N = 150


def patterns() -> dict[str, CSC]:
    rng = np.random.default_rng(0)
    loops = np.arange(0, N, 3)
    src, dst = rng.integers(0, N, (2, 900))
    many = compress(np.r_[src, src[:200], loops], np.r_[dst, dst[:200], loops], N, N)[0]
    hub = compress(
        np.r_[np.arange(N), np.zeros(N, int)], np.r_[np.zeros(N, int), np.arange(N)], N, N
    )
    empty = CSC(torch.zeros(N + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), N)
    wide = CSC(many.indptr.long(), many.indices.long(), N)
    return {"loops and parallel edges": many, "hub": hub[0], "no edges": empty, "int64": wide}


def by_hand(csc: CSC, nodes: list[int], cuts: list[int]):
    """Row by row, in the order of the pattern, looking each source up in its group's list."""
    indptr, indices = csc.indptr.tolist(), csc.indices.tolist()
    out, edge, src = [0], [], []
    for first, last in pairwise(cuts):
        group = nodes[first:last]
        for v in group:
            for e in range(indptr[v], indptr[v + 1]):
                if indices[e] in group:
                    edge.append(e)
                    src.append(first + group.index(indices[e]))
            out.append(len(edge))
    return out, edge, src


def lists(result):
    return tuple(t.tolist() for t in result)


@pytest.mark.parametrize("csc", patterns().values(), ids=patterns().keys())
@pytest.mark.parametrize("size", [0, 1, 40, 64, N])
def test_numba_and_torch_equal_plain_loops(csc, size):
    nodes = torch.from_numpy(np.random.default_rng(size).permutation(N)[:size].copy())
    truth = by_hand(csc, nodes.tolist(), [0, size])
    out = induced(csc, nodes, Workspace(N))
    assert lists(out) == truth
    assert lists(torch_induced.induced(csc, nodes, None)) == truth
    assert out.edge.dtype == out.src.dtype == csc.indices.dtype
    assert out.indptr.dtype == torch.int64


@pytest.mark.parametrize("csc", patterns().values(), ids=patterns().keys())
def test_edges_stay_in_their_group_and_a_node_may_be_in_many(csc):
    rng = np.random.default_rng(1)
    sizes = [5, 0, N, 17, 1]
    nodes = torch.from_numpy(np.concatenate([rng.permutation(N)[:s] for s in sizes]))
    cuts = torch.tensor([0, *np.cumsum(sizes).tolist()])
    truth = by_hand(csc, nodes.tolist(), cuts.tolist())
    assert lists(induced(csc, nodes, Workspace(N), cuts=cuts)) == truth
    assert lists(torch_induced.induced(csc, nodes, cuts)) == truth


def test_neighbours_beyond_all_groups_are_not_taken_for_the_next_group():
    csc = patterns()["loops and parallel edges"]
    nodes, cuts = torch.arange(30) % 5, torch.arange(0, 31, 5)
    truth = by_hand(csc, nodes.tolist(), cuts.tolist())
    assert lists(induced(csc, nodes, Workspace(N), cuts=cuts)) == truth
    assert lists(torch_induced.induced(csc, nodes, cuts)) == truth


def test_scratch_that_others_wrote_is_not_believed():
    csc, workspace = patterns()["loops and parallel edges"], Workspace(N)
    nodes = torch.arange(10, 60)
    fresh = lists(induced(csc, nodes, Workspace(N)))
    relabel(torch.arange(N), torch.arange(N), workspace)
    assert lists(induced(csc, nodes, workspace)) == fresh
    # What this kernel leaves behind must not look like a stamp to relabel either.
    local, known = relabel(torch.tensor([20]), torch.tensor([30, 20, 31]), workspace)
    assert local.tolist() == [1, 0, 2]
    assert known.tolist() == [20, 30, 31]


def test_result_owns_no_more_than_twice_its_size():
    csc = random_pattern(2000, 2000, 40_000, seed=4)
    out = induced(csc, torch.arange(100), Workspace(2000))
    assert out.edge.untyped_storage().nbytes() <= 2 * out.edge.numel() * out.edge.element_size()


def test_threads_do_not_share_scratch():
    csc = random_pattern(3000, 3000, 60_000, seed=2)
    parts = torch.from_numpy(np.random.default_rng(3).permutation(3000)).chunk(8)
    truth = [lists(induced(csc, part, Workspace(3000))) for part in parts]
    found = [None] * 8

    def work(i):
        workspace = Workspace(3000)
        for _ in range(20):
            found[i] = lists(induced(csc, parts[i], workspace))

    pool = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert found == truth


@pytest.mark.gpu
def test_same_integers_on_the_gpu():
    csc = patterns()["loops and parallel edges"]
    nodes = torch.from_numpy(np.random.default_rng(5).permutation(N)[:60].copy())
    here = induced(csc, nodes, Workspace(N))
    there = induced(csc.to("cuda"), nodes.cuda(), Workspace(N))
    assert lists(there) == lists(here)
