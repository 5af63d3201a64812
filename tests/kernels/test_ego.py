"""Ego graphs: networkx's breadth-first search, the law of the draws, agreement across back-ends."""

import networkx as nx
import pytest
import torch
from samplers.graphs import AWKWARD, hub

from graphdyn.graph import Propagation
from graphdyn.kernels import ego as module
from graphdyn.kernels.draw import Workspace, find_loops
from graphdyn.kernels.ego import ego
from graphdyn.keys import Key

GRAPHS = AWKWARD | {"hub": lambda: hub(60)}


def draw(graph, depth, k, *, roots=None, key=Key(1), self_loops=True):
    csc = graph.adjacency(Propagation("none", self_loops)).csc
    roots = range(graph.num_nodes) if roots is None else roots
    roots = torch.tensor(list(roots), dtype=torch.int64)
    return ego(csc, find_loops(csc), roots, depth, k, key.bits, Workspace(graph.num_nodes))


def groups(found):
    return [found.node[a:b].tolist() for a, b in zip(found.cuts, found.cuts[1:])]


def distances(graph, root, depth):
    """How many messages a node is away from the root, by networkx."""
    backwards = nx.DiGraph(graph.edge_index.flip(0).t().tolist())
    backwards.add_nodes_from(range(graph.num_nodes))
    return nx.single_source_shortest_path_length(backwards, root, cutoff=depth)


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_all_neighbours_is_breadth_first_search(name, depth, self_loops):
    graph = GRAPHS[name]()
    for root, nodes in enumerate(groups(draw(graph, depth, -1, self_loops=self_loops))):
        away = distances(graph, root, depth)
        assert nodes[0] == root
        assert sorted(nodes) == sorted(away)
        assert [away[v] for v in nodes] == sorted(away.values())


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_draw_is_a_part_of_the_neighbourhood(name, k):
    graph = GRAPHS[name]()
    for root, nodes in enumerate(groups(draw(graph, 2, k))):
        assert len(set(nodes)) == len(nodes) <= 1 + k + k**2
        assert set(nodes) <= set(distances(graph, root, 2))


def test_draws_are_uniform_and_independent_between_groups():
    """How often each leaf of a star is in the ego graphs of two other leaves, and in both."""
    graph, rounds = AWKWARD["star"](), 3000
    hits = torch.zeros(2, 9)
    both = torch.zeros(9)
    for r in range(rounds):
        # Ego graphs of leaves 1 and 2: each holds the hub, and 3 of the hub's nine leaves.
        first, second = groups(draw(graph, 2, 3, roots=[1, 2], key=Key(r)))
        rows = torch.zeros(2, 10)
        rows[0, first], rows[1, second] = 1, 1
        hits += rows[:, 1:]
        both += rows[0, 1:] * rows[1, 1:]
    p = 3 / 9
    error = (p * (1 - p) / rounds) ** 0.5
    share = hits[:, 2:] / rounds  # leaves 3 to 9: not roots themselves
    assert ((share - p).abs() <= 5 * error).all()
    q = p * p
    assert ((both[2:] / rounds - q).abs() <= 5 * (q * (1 - q) / rounds) ** 0.5).all()


def test_loops_take_no_draw():
    """Node 0 has a loop and two other sources; with k = 2 both are always there."""
    graph = AWKWARD["loops"]()
    for r in range(30):
        assert sorted(groups(draw(graph, 1, 2, roots=[0], key=Key(r)))[0]) == [0, 4, 5]


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_torch_agrees_to_the_bit(name, self_loops, monkeypatch):
    graph = GRAPHS[name]()
    cases = [(d, k) for d in (1, 2, 3) for k in (-1, 1, 2, 4)]
    ours = [draw(graph, d, k, self_loops=self_loops) for d, k in cases]
    monkeypatch.setattr(module, "compiled", lambda device: False)
    for (d, k), found in zip(cases, ours):
        other = draw(graph, d, k, self_loops=self_loops)
        assert torch.equal(found.node, other.node)
        assert torch.equal(found.cuts, other.cuts)


def test_a_group_does_not_depend_on_the_other_roots():
    graph = AWKWARD["communities"]()
    every = groups(draw(graph, 2, 2))
    assert groups(draw(graph, 2, 2, roots=[7, 3, 3])) == [every[7], every[3], every[3]]


def test_no_roots():
    found = draw(AWKWARD["star"](), 2, 2, roots=[])
    assert (found.node.numel(), found.cuts.tolist()) == (0, [0])
