"""FeatureCache: the same rows as without it, the best ones kept, every read counted."""

import numpy as np
import pytest
import torch
from cases import tiny

import graphdyn as gd
from graphdyn.cache import FeatureCache, out_degree
from graphdyn.data.store import map_npy
from graphdyn.errors import InputError
from graphdyn.samplers.inclusion import source_probability


@pytest.fixture
def x(tmp_path):
    """A memory-mapped table."""
    values = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    return map_npy(tmp_path / "x.npy")


def test_rows_are_those_of_the_table_and_reads_are_counted(x):
    probability = torch.linspace(0, 1, 200)
    cache = FeatureCache(x, probability, rows=50)
    assert (cache.rows, cache.nbytes, cache.hit_rate) == (50, 50 * 8 * 4, 0.0)

    ids = torch.tensor([199, 0, 150, 149, 199])
    assert torch.equal(cache.take(ids), x[ids])

    # 150..199 have the largest probabilities
    assert (cache.hits, cache.misses, cache.hit_rate) == (3, 2, 0.6)


def test_size_in_bytes_and_more_than_there_is(x):
    assert FeatureCache(x, torch.ones(200), nbytes=10 * 8 * 4 + 31).rows == 10
    assert FeatureCache(x, torch.ones(200), rows=10**6).rows == 200


def test_rows_are_kept_by_what_the_sampler_reads_most():
    graph = gd.load("csbm")
    plans = gd.Neighbor(fanouts=(3, 3), batch_size=20).prepare(graph, gd.Propagation(), 2)
    counts = torch.zeros(graph.num_nodes)
    for key in plans.keys(gd.Key(5), range(8)):
        counts[plans.plan(key).node_id] += 1

    def share(order):
        return float(counts[torch.argsort(order, descending=True)[:200]].sum() / counts.sum())

    best, by_plans = share(counts), share(source_probability(plans, graph.num_nodes))
    by_degree, by_chance = share(out_degree(graph)), 200 / graph.num_nodes
    assert best >= by_plans > by_degree > by_chance

    cache = FeatureCache(graph.x, source_probability(plans, graph.num_nodes), rows=200)
    for _ in gd.Loader(plans, graph, key=gd.Key(5), epochs=8, cache=cache):
        pass
    assert cache.hit_rate == pytest.approx(by_plans)
    assert cache.hits + cache.misses == int(counts.sum())


def test_out_degree_counts_edges_by_source():
    graph = tiny("parallel")
    dense = np.zeros(12, int)
    for source in graph.csc.indices.tolist():
        dense[source] += 1
    assert out_degree(graph).tolist() == dense.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": None}, "either in rows or in nbytes"),
        ({"nbytes": 100}, "either in rows or in nbytes"),
        ({"rows": 0}, "would hold 0 rows"),
        ({"rows": None, "nbytes": 3}, "would hold 0 rows"),
        ({"probability": torch.ones(3)}, r"shape \(3,\); expected \(12,\)"),
        ({"probability": torch.full((12,), float("nan"))}, "expected"),
        ({"x": tiny(sparse=True).x}, "the features are sparse"),
    ],
)
def test_what_cannot_be_cached_is_one_sentence(change, message):
    options = {"x": tiny().x, "probability": torch.ones(12), "rows": 4, **change}
    with pytest.raises(InputError, match=message):
        FeatureCache(options.pop("x"), options.pop("probability"), **options)
