"""Random splits: sizes, ids that give the split again, uniformity; and what is refused."""

import numpy as np
import pytest
import torch

from graphdyn.data import load, random_split
from graphdyn.errors import InputError
from graphdyn.graph import Graph


def labelled(sizes, unlabelled=0, order_seed=0, **more) -> Graph:
    y = np.concatenate([np.full(n, c) for c, n in enumerate(sizes)] + [np.full(unlabelled, -1)])
    y = torch.from_numpy(np.random.default_rng(order_seed).permutation(y))
    edges = torch.zeros((2, 1), dtype=torch.int64)
    return Graph.from_edge_index(edges, len(y), y=y, num_classes=len(sizes), **more)


def sizes(split):
    return [len(ids) for ids in split.parts().values()]


def test_per_class_takes_as_many_of_each_class():
    graph = labelled([40, 30, 25], unlabelled=15)
    split = random_split(graph, "random-20x10x15", seed=3)
    assert sizes(split) == [60, 10, 15]
    assert torch.bincount(graph.y[split.train]).tolist() == [20, 20, 20]
    graph.with_split(split).check()  # disjoint, inside, labelled
    assert split.id == "random-20x10x15-seed3"


def test_the_rest_goes_to_test():
    graph = labelled([40, 30, 25], unlabelled=15)
    assert sizes(random_split(graph, "random-20x10xrest")) == [60, 10, 25]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [("0.6-0.2-0.2", [60, 20, 20]), ("0.5-0.25-0.25", [50, 25, 25]), ("0.1-0.2-0.3", [10, 20, 30])],
)
def test_ratios_are_of_the_labelled_nodes(shares, expected):
    graph = labelled([60, 40], unlabelled=37)
    split = random_split(graph, f"random-{shares}")
    assert sizes(split) == expected
    graph.with_split(split).check()


def test_shares_that_add_up_to_one_leave_no_node_out():
    graph = labelled([53, 54])
    assert sum(sizes(random_split(graph, "random-0.6-0.2-0.2"))) == 107


def test_shares_are_not_cut_short_by_binary_fractions():
    assert 0.29 * 100 < 29  # what plain rounding down would fall for
    assert sizes(random_split(labelled([60, 40]), "random-0.29-0.29-0.42")) == [29, 29, 42]


@pytest.mark.parametrize("scheme", ["random-5x5x20", "random-0.6-0.2-0.2"])
def test_the_id_alone_gives_the_split_again_and_seeds_differ(scheme):
    graph = labelled([40, 60])
    one = random_split(graph, scheme, seed=7)
    again = random_split(graph, one.id, seed=99)  # the id names its seed
    other = random_split(graph, scheme, seed=8)
    assert again.id == one.id
    for part in ("train", "valid", "test"):
        assert torch.equal(getattr(one, part), getattr(again, part))
        assert not torch.equal(getattr(one, part), getattr(other, part))
        assert torch.equal(getattr(one, part), getattr(one, part).sort().values)


def test_no_global_generator_is_read_or_moved():
    graph = labelled([40, 60])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = random_split(graph, "random-5x5x20")
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(one.train, random_split(graph, "random-5x5x20").train)


def test_every_node_of_a_class_is_as_likely_to_train():
    graph, rounds = labelled([10, 20]), 3000
    hits = torch.zeros(30)
    for seed in range(rounds):
        hits[random_split(graph, "random-5x5x5", seed).train] += 1
    for c, size in enumerate((10, 20)):
        p = 5 / size
        # Sampling without replacement: (n - 1) / n of the binomial variance a node.
        spread = (hits[graph.y == c] - rounds * p).square().sum() / (rounds * p * (1 - p))
        assert abs(float(spread) * (size - 1) / size - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("random-26x1x1", "class 2 has 25 labelled nodes; 26 are asked for"),
        ("random-20x30x6", r"35 labelled nodes are left; 30 \+ 6 asked for"),
        ("random-20x36xrest", "35 labelled nodes are left"),
        ("random-0.6-0.3-0.2", "add up to 1.1"),
        ("random-0.01-0.01-0.01", "too few for the shares"),
        ("random-20", "is not a random split"),
    ],
)
def test_splits_that_cannot_be_made_are_explained(scheme, message):
    with pytest.raises(InputError, match=message):
        random_split(labelled([40, 30, 25]), scheme)


def test_torch_splits_are_those_of_a_script_that_seeds_the_global_generator():
    graph = labelled([40, 30, 25])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        y, train, rest = graph.y.tolist(), [], []
        for c in sorted(set(y)):
            nodes = [i for i, label in enumerate(y) if label == c]
            nodes = [nodes[j] for j in torch.randperm(len(nodes)).tolist()]
            train += nodes[:5]
            rest += nodes[5:]
        rest = [rest[j] for j in torch.randperm(len(rest)).tolist()]
    state = torch.get_rng_state()
    split = random_split(graph, "torch-5x30x20-seed123", seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert (split.id, split.train.tolist()) == ("torch-5x30x20-seed123", sorted(train))
    assert split.valid.tolist() == sorted(rest[:30])
    assert split.test.tolist() == sorted(rest[30:50])
    assert random_split(graph, "torch-5x30x20", seed=4).id == "torch-5x30x20-seed4"


@pytest.mark.parametrize(
    ("split", "sentence"),
    [("torch-90x1x1", "labelled nodes; 90 are asked"), ("torch-5x90x1", r"90 \+ 1 asked for")],
)
def test_torch_splits_say_what_is_too_small(split, sentence):
    with pytest.raises(InputError, match=sentence):
        random_split(labelled([40, 30, 25]), split)


def test_a_split_needs_labels_and_per_class_needs_one_a_node():
    edges = torch.zeros((2, 1), dtype=torch.int64)
    with pytest.raises(InputError, match="has no labels"):
        random_split(Graph.from_edge_index(edges, 3), "random-0.4-0.3-0.3")
    y = torch.tensor([[1.0, 0.0], [float("nan")] * 2, [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    graph = Graph.from_edge_index(edges, 5, y=y, num_classes=2, task="multilabel")
    with pytest.raises(InputError, match="needs one class a node"):
        random_split(graph, "random-1x1x1")
    split = random_split(graph, "random-0.5-0.25-0.25")
    assert sorted(torch.cat(list(split.parts().values())).tolist()) == [0, 2, 3, 4]


def test_load_resolves_families_by_seed():
    graphs = [load("csbm", split="random-20x500x1000", seed=seed) for seed in (0, 1)]
    assert [g.split.id[-5:] for g in graphs] == ["seed0", "seed1"]
    assert torch.equal(graphs[0].csc.indices, graphs[1].csc.indices)  # the same graph
