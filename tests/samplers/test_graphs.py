"""The awkward graphs are what they claim to be, and the oracles agree with the package's matrix."""

import pytest
import torch
from samplers.graphs import AWKWARD, hub
from samplers.oracles import matrix

from graphdyn.graph import Propagation


@pytest.mark.parametrize("norm", ["sym", "mean", "column", "none"])
@pytest.mark.parametrize("name", AWKWARD)
def test_the_dense_matrix_is_the_propagation_matrix(name, norm):
    graph = AWKWARD[name]().check()
    for self_loops in (False, True):
        propagation = Propagation(norm, self_loops)
        ours = graph.adjacency(propagation).to_dense(torch.float64)
        torch.testing.assert_close(ours, matrix(graph, propagation), rtol=1e-6, atol=1e-7)


def test_a_hub_has_the_degree_asked_for():
    graph = hub(50)
    assert graph.csc.degree[0] == 50
    assert graph.csc.degree[1:].unique().tolist() == [2]
