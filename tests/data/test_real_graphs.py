"""Real raw files: counts against the cards, arrays against PyG's own loaders of the same bytes."""

import csv
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from graphdyn.data import card, load, names, resplit, verify
from graphdyn.sparse import Sparse

pytestmark = pytest.mark.dataset

HERE = [
    "cora",
    "citeseer",
    "pubmed",
    "cora-ml",
    "amazon-photo",
    "coauthor-cs",
    "minesweeper",
    "chameleon-filtered",
    "squirrel-filtered",
    "cornell5",
    "reed98",
    "ogbn-arxiv-tape",
]


def dense(x) -> torch.Tensor:
    return x.to_dense() if isinstance(x, Sparse) else x


def edge_set(edge_index) -> np.ndarray:
    """Edges as sorted numbers: the order in which a loader stores them is its own affair."""
    src, dst = np.asarray(edge_index, dtype=np.int64)
    return np.sort(dst * 10_000_000 + src)


def copied(data_root: Path, folder: str, tmp_path: Path) -> Path:
    """PyG writes beside the raw files, so it gets a copy of its own."""
    shutil.copytree(data_root / folder, tmp_path / folder)
    return tmp_path / Path(folder).parent


def assert_equal(graph, data) -> None:
    np.testing.assert_array_equal(edge_set(graph.edge_index), edge_set(data.edge_index))
    assert torch.equal(dense(graph.x), data.x)
    assert torch.equal(graph.y, data.y)


def assert_split(graph, train, valid, test) -> None:
    for ours, mask in zip(graph.split.parts().values(), (train, valid, test), strict=True):
        assert torch.equal(ours, torch.nonzero(mask).flatten())


@pytest.mark.parametrize("name", HERE)
def test_counts_are_those_of_the_card(name, data_root):
    graph, counts = load(name, data_root, download=False), card(name).counts
    assert counts.edges is not None  # otherwise nothing would be compared
    assert (graph.num_nodes, graph.num_edges) == (counts.nodes, counts.edges)
    assert (graph.num_features, graph.num_classes) == (counts.features, counts.classes)
    assert graph.check() is graph


@pytest.mark.parametrize("name", HERE)
def test_raw_files_are_those_of_the_card(name, data_root):
    assert {row["status"] for row in verify(name, data_root)} == {"ok"}


@pytest.mark.parametrize("name", ["cora", "pubmed", "amazon-photo", "minesweeper"])
def test_wide_and_mostly_empty_features_are_sparse(name, data_root):
    x = load(name, data_root).x
    share = float((dense(x) != 0).float().mean())
    assert isinstance(x, Sparse) == (share < 0.25 and x.shape[1] >= 64)


@pytest.mark.parametrize("title", ["Cora", "CiteSeer", "PubMed"])
def test_planetoid_equals_pyg(title, data_root, tmp_path):
    from torch_geometric.datasets import Planetoid

    root = copied(data_root, f"planetoid/{title}", tmp_path)
    for file in (root / title / "raw").iterdir():  # where PyG looks for them with these splits
        shutil.copy(file, root / title / "geom-gcn" / "raw")
    graph, data = load(title.lower(), data_root), Planetoid(str(root), title)[0]
    assert_equal(graph, data)
    assert_split(graph, data.train_mask, data.val_mask, data.test_mask)
    wide = Planetoid(str(root), title, split="geom-gcn", force_reload=True)[0]
    for index in (0, 9):
        graph = load(title.lower(), data_root, f"geom-gcn-{index}")
        masks = (wide[part][:, index] for part in ("train_mask", "val_mask", "test_mask"))
        assert_split(graph, *masks)
        assert graph.split.id == f"geom-gcn-{index}"


@pytest.mark.parametrize(
    ("name", "kind", "title", "folder"),
    [
        ("cora-ml", "CitationFull", "Cora_ML", "citation_full/cora_ml"),
        ("amazon-photo", "Amazon", "Photo", "amazon/Photo"),
        ("coauthor-cs", "Coauthor", "CS", "coauthor/CS"),
    ],
)
def test_npz_equals_pyg(name, kind, title, folder, data_root, tmp_path):
    import torch_geometric.datasets

    root = copied(data_root, folder, tmp_path)
    data = getattr(torch_geometric.datasets, kind)(str(root), title)[0]
    assert_equal(load(name, data_root), data)


def test_minesweeper_equals_pyg_under_every_split(data_root, tmp_path):
    from torch_geometric.datasets import HeterophilousGraphDataset

    root = copied(data_root, "heterophilous/minesweeper", tmp_path)
    data = HeterophilousGraphDataset(str(root), "Minesweeper")[0]
    graph = load("minesweeper", data_root)
    assert_equal(graph, data)
    for index in range(10):
        other = resplit(graph, "minesweeper", data_root, f"heterophilous-{index}")
        masks = (data[part][:, index] for part in ("train_mask", "val_mask", "test_mask"))
        assert_split(other, *masks)


@pytest.mark.parametrize("name", ["reed98", "cornell5"])
def test_linkx_equals_pyg(name, data_root, tmp_path):
    from torch_geometric.datasets import LINKXDataset

    root = copied(data_root, f"linkx/{name}", tmp_path)
    data = LINKXDataset(str(root), name)[0]
    data.x = data.x.float()
    graph = load(name, data_root)
    assert_equal(graph, data)
    assert int(graph.y.min()) == -1
    assert all(bool((graph.y[ids] >= 0).all()) for ids in graph.split.parts().values())


@pytest.mark.parametrize("name", ["chameleon-filtered", "squirrel-filtered"])
def test_filtered_graphs_hold_every_pair_both_ways(name, data_root):
    graph = load(name, data_root, "heterophilous-4")
    path = data_root / "heterophilous_filtered" / f"{name.replace('-', '_')}.npz"
    with np.load(path) as file:
        edges = {(int(u), int(v)) for u, v in file["edges"]}
        edges |= {(v, u) for u, v in edges}
        assert {tuple(e) for e in graph.edge_index.T.tolist()} == edges
        assert torch.equal(dense(graph.x), torch.from_numpy(file["node_features"]))
        masks = [torch.from_numpy(file[f"{p}_masks"][4]) for p in ("train", "val", "test")]
    assert_split(graph, *masks)


def arxiv_column(data_root: Path, path: str) -> list[int]:
    with gzip.open(data_root / "ogbn_arxiv" / path, "rt") as file:
        return [int(line.split(",")[0]) for line in file]


def test_arxiv_edges_labels_years_and_split_are_those_of_the_text_files(data_root):
    graph = load("ogbn-arxiv", data_root, undirected=False, features="none", download=False)
    with gzip.open(data_root / "ogbn_arxiv/raw/edge.csv.gz") as file:
        edges = np.array(file.read().replace(b"\n", b",").split(b",")[:-1], np.int64).reshape(-1, 2)
    np.testing.assert_array_equal(edge_set(graph.edge_index), edge_set(edges.T))
    assert graph.y.tolist() == arxiv_column(data_root, "raw/node-label.csv.gz")
    assert graph.node_attrs["year"].tolist() == arxiv_column(data_root, "raw/node_year.csv.gz")
    assert graph.split.id == "time"
    assert graph.split.test.tolist() == sorted(arxiv_column(data_root, "split/time/test.csv.gz"))
    both = load("ogbn-arxiv", data_root, features="none")
    expected = np.unique(np.concatenate([edge_set(edges.T), edge_set(edges[:, ::-1].T)]))
    np.testing.assert_array_equal(edge_set(both.edge_index), expected)


def test_tape_features_are_one_hot_per_rank(data_root):
    x = load("ogbn-arxiv-tape", data_root).x
    assert isinstance(x, Sparse)
    with (data_root / "ogbn_arxiv/tape_gpt_preds.csv").open() as file:
        lines = list(csv.reader(file))
    assert x.csc.degree.tolist() == [len(line) for line in lines]
    for node in (0, 1, 2, 168_000):
        columns = [40 * rank + int(guess) for rank, guess in enumerate(lines[node])]
        assert x.rows(torch.tensor([node])).csc.indices.tolist() == columns


def test_arxiv_year_classes_are_bounded_by_years(data_root):
    graph = load("arxiv-year", data_root, "linkx-3", features="none", download=False)
    year = graph.node_attrs["year"].numpy()
    expected = sum((year >= bound).astype(int) for bound in (2014, 2016, 2018, 2019))
    np.testing.assert_array_equal(graph.y.numpy(), expected)
    sizes = [len(ids) for ids in graph.split.parts().values()]
    assert sizes == [84_671, 42_335, 42_337]
    assert not torch.equal(
        graph.split.train, resplit(graph, "arxiv-year", data_root, "linkx-2").split.train
    )


@pytest.mark.parametrize("name", ["amazon-photo", "coauthor-cs"])
def test_the_fixed_split_is_that_of_its_file(name, data_root):
    graph = load(name, data_root, "fixed")
    with np.load(data_root / "splits_tunedGNN" / f"{name}_split.npz") as file:
        for part, ids in graph.split.parts().items():
            np.testing.assert_array_equal(ids.numpy(), np.sort(file[part]))


def test_every_set_is_either_here_or_says_how_to_get_it(data_root):
    from graphdyn.errors import DataError

    for name in set(names()) - set(HERE) - {"csbm"}:
        with pytest.raises(DataError, match=r"download http.* or allow downloading"):
            load(name, data_root, download=False)
