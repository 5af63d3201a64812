"""The memory-mapped store: same graph, paged in, never stale, never half there, never fatal."""

import sys

import numpy as np
import pytest
import torch

from graphdyn.data import load, store
from graphdyn.data.store import map_npy
from graphdyn.sparse import Sparse


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(folder, seed=0, weight=False):
    """An edge list with wide, mostly empty features."""
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 50, (300, 2))
    more = {"weight": rng.random(300)} if weight else {}
    x = rng.random((50, 80)) * (rng.random((50, 80)) < 0.1)
    np.savez(folder / "g.npz", edges=edges, features=x, labels=rng.integers(0, 3, 50), **more)
    text = 'name = "mine"\nformat = "edge-list"\n[reader]\nfile = "g.npz"\n'
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def stores(tmp_path):
    return sorted((tmp_path / "cache" / "graphdyn" / "store").glob("mine-*"))


def assert_same(one, two):
    for key in ("indptr", "indices"):
        assert torch.equal(getattr(one.csc, key), getattr(two.csc, key))
        assert torch.equal(getattr(one.x.csc, key), getattr(two.x.csc, key))
    assert torch.equal(one.x.values, two.x.values)
    assert torch.equal(one.y, two.y)
    assert (one.edge_weight is None) == (two.edge_weight is None)
    if one.edge_weight is not None:
        assert torch.equal(one.edge_weight, two.edge_weight)


@pytest.mark.parametrize("weight", [False, True])
def test_built_and_reopened_stores_equal_the_parsed_graph(tmp_path, weight, monkeypatch):
    card = write(tmp_path, weight=weight)
    plain = load(card, tmp_path, store=False)
    assert stores(tmp_path) == []
    built = load(card, tmp_path, store=True)
    assert isinstance(plain.x, Sparse)
    assert_same(plain, built)
    monkeypatch.setattr("graphdyn.data.readers.edge_list.read", None)  # no parsing any more
    again = load(card, tmp_path, store=True)
    assert_same(plain, again)
    assert again.check() is again


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_tensors_of_a_store_are_pages_of_its_files(tmp_path):
    graph = load(write(tmp_path), tmp_path, store=True)
    (folder,) = stores(tmp_path)
    with open("/proc/self/maps") as file:
        maps = [line.split() for line in file if str(folder) in line]
    mapped = {line[-1].rsplit("/", 1)[1] for line in maps}
    assert {"indptr.npy", "indices.npy", "x_values.npy", "y.npy"} <= mapped
    spans = [line[0].split("-") for line in maps if line[-1].endswith("/indices.npy")]
    at = graph.csc.indices.data_ptr()
    assert any(int(start, 16) <= at < int(end, 16) for start, end in spans)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_mapping_reads_no_page_before_it_is_touched(tmp_path):
    path = tmp_path / "big.npy"
    np.lib.format.open_memmap(path, "w+", np.float32, (1 << 24,)).flush()  # 64 MiB
    tensor = map_npy(path)

    def resident() -> int:
        with open("/proc/self/smaps") as file:
            lines = file.read().split(str(path))[1].splitlines()
        return int(next(line for line in lines if line.startswith("Rss")).split()[1])

    assert resident() < 1024
    assert float(tensor[5_000_000]) == 0.0
    assert resident() < 8192


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems may refuse")
def test_a_file_larger_than_memory_can_be_mapped(tmp_path):
    path, count = tmp_path / "huge.npy", 1 << 36  # 256 GiB of holes
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * count)
    tensor = map_npy(path)
    assert tensor.shape == (count,)
    assert float(tensor[-1]) == 0.0


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path):
    card = write(tmp_path)
    graph = load(card, tmp_path, store=True)
    before = int(graph.y[0])
    graph.y[0] = 99
    assert int(load(card, tmp_path, store=True).y[0]) == before


@pytest.mark.parametrize("change", ["content", "features", "undirected", "card", "version"])
def test_anything_that_changes_the_arrays_makes_another_store(tmp_path, change, monkeypatch):
    card = write(tmp_path)
    load(card, tmp_path, store=True)
    options = {}
    if change == "content":
        write(tmp_path, seed=1)
    elif change == "card":
        path = tmp_path / "other.toml"
        path.write_text((tmp_path / "mine.toml").read_text() + "[graph]\ncoalesce = true\n")
        card = str(path)
    elif change == "version":
        monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    else:
        options = {"features": "dense"} if change == "features" else {"undirected": True}
    graph = load(card, tmp_path, store=True, **options)
    assert len(stores(tmp_path)) == 2
    plain = load(card, tmp_path, store=False, **options)
    assert torch.equal(graph.csc.indices, plain.csc.indices)


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_store_is_built_again(tmp_path, damage, monkeypatch):
    card = write(tmp_path)
    plain = load(card, tmp_path, store=False)
    load(card, tmp_path, store=True)
    (folder,) = stores(tmp_path)
    path = folder / ("manifest.json" if damage == "manifest" else "indices.npy")
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    load(card, tmp_path, store=True)
    monkeypatch.setattr("graphdyn.data.readers.edge_list.read", None)
    assert_same(plain, load(card, tmp_path, store=True))
    assert stores(tmp_path) == [folder]


def test_a_full_disk_costs_the_store_and_nothing_else(tmp_path, monkeypatch):
    card = write(tmp_path)

    def full(file, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_reserve", full)
    with pytest.warns(UserWarning, match="no store at .*No space left on device.*parsed again"):
        graph = load(card, tmp_path, store=True)
    assert graph.num_nodes == 50
    assert list((tmp_path / "cache" / "graphdyn" / "store").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_the_store_and_nothing_else(tmp_path):
    card = write(tmp_path)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="no store at"):
        assert load(card, tmp_path, store=True).num_nodes == 50


def test_a_build_that_fails_leaves_nothing(tmp_path):
    from graphdyn.errors import DataError

    card = write(tmp_path)
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="corrupt or truncated"):
        load(card, tmp_path, store=True)
    assert list((tmp_path / "cache" / "graphdyn" / "store").iterdir()) == []


def test_small_raw_files_need_no_store(tmp_path):
    load(write(tmp_path), tmp_path)
    assert stores(tmp_path) == []


def test_empty_arrays_survive(tmp_path):
    card = write(tmp_path)
    np.savez(tmp_path / "g.npz", edges=np.array([[0, 0]]), features=np.zeros((1, 80)), labels=[0])
    path = tmp_path / "mine.toml"
    path.write_text(path.read_text() + "[graph]\ndrop_loops = true\n")
    for _ in range(2):
        graph = load(card, tmp_path, store=True)
        assert (graph.num_nodes, graph.num_edges, graph.x.csc.num_edges) == (1, 0, 0)
