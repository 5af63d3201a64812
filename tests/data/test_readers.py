"""Every raw format from small files made here, and what happens when they are damaged."""

import gzip
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

from graphdyn.data import load
from graphdyn.errors import DataError, InputError
from graphdyn.sparse import Sparse

SRC, DST = np.array([0, 1, 2, 3, 3]), np.array([1, 2, 0, 0, 3])
X = np.array([[1, 0, 2], [0, 0, 0], [0, 3, 0], [4, 0, 5]], np.float32)
Y = np.array([0, 1, 1, 2])


def card_file(folder, format_name, *, splits="", **sections):
    """A card of one's own beside the raw files it describes."""
    lines = ['name = "tiny"', f'format = "{format_name}"']
    lines += [f'{k} = "{v}"' for k, v in sections.pop("top", {}).items()]
    for section, entries in sections.items():
        lines += [f"[{section}]"] + [f"{k} = {json.dumps(v)}" for k, v in entries.items()]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n" + splits)
    return str(path)


def edges_of(graph):
    return sorted(zip(graph.csc.indices.tolist(), graph.csc.dst.tolist(), strict=True))


def dense(x):
    return (x.to_dense() if isinstance(x, Sparse) else x).numpy()


def both_ways(src, dst):
    return sorted({*zip(src, dst, strict=True)} | {*zip(dst, src, strict=True)})


def gz(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def rows(array):
    return "".join(",".join(map(str, np.atleast_1d(row))) + "\n" for row in array)


def write_npz(folder, **changes):
    (folder / "raw").mkdir(exist_ok=True)
    adj, attr = sp.csr_array((np.ones(5), (SRC, DST)), shape=(4, 4)), sp.csr_array(X)
    parts = {"labels": Y}
    for name, matrix in (("adj", adj), ("attr", attr)):
        parts |= {f"{name}_{k}": getattr(matrix, k) for k in ("data", "indices", "indptr")}
        parts[f"{name}_shape"] = np.array(matrix.shape)
    np.savez(folder / "raw" / "tiny.npz", **(parts | changes))
    graph = {"undirected": True, "drop_loops": True}
    return card_file(folder, "npz", reader={"file": "tiny.npz", "binarise": True}, graph=graph)


def test_npz_is_binarised_symmetrised_and_without_loops(tmp_path):
    graph = load(write_npz(tmp_path), tmp_path)
    assert edges_of(graph) == both_ways(SRC[:-1].tolist(), DST[:-1].tolist())
    np.testing.assert_array_equal(dense(graph.x), (X > 0).astype(np.float32))
    assert graph.y.tolist() == Y.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"adj_indices": np.array([1, 2, 0, 0, 9])},
        {"adj_indptr": np.array([0, 1, 2, 3, 9])},
        {"labels": Y[:3]},
        {"attr_data": np.ones(2)},
    ],
    ids=["column outside", "row pointer outside", "labels too few", "values too few"],
)
def test_npz_arrays_that_do_not_fit_are_named_not_read(tmp_path, changes):
    with pytest.raises(DataError, match=r"tiny\.npz is corrupt or truncated"):
        load(write_npz(tmp_path, **changes), tmp_path)


def test_zeros_that_are_stored_do_not_count_as_features(tmp_path):
    changes = {"attr_data": np.array([1.0, 0.0, 3.0, 4.0, 5.0])}
    x = load(write_npz(tmp_path, **changes), tmp_path, features="sparse").x
    assert x.csc.num_edges == 4


def write_heterophilous(folder, edges=None, x=X, y=Y):
    masks = np.eye(4, dtype=bool)
    np.savez(
        folder / "tiny.npz",
        node_features=x,
        node_labels=y,
        edges=np.stack([SRC, DST], axis=1) if edges is None else edges,
        train_masks=masks,
        val_masks=np.roll(masks, 1, axis=1),
        test_masks=np.roll(masks, 2, axis=1),
    )
    splits = '[splits]\ndefault = "h-0"\nh = {read = "mask-rows", file = "tiny.npz", count = 4}\n'
    reader, graph = {"file": "tiny.npz"}, {"undirected": True}
    return card_file(folder, "heterophilous", splits=splits, reader=reader, graph=graph)


def test_heterophilous_keeps_loops_and_has_its_splits(tmp_path):
    card = write_heterophilous(tmp_path)
    graph = load(card, tmp_path, "h-2")
    assert edges_of(graph) == both_ways(SRC.tolist(), DST.tolist())
    np.testing.assert_array_equal(dense(graph.x), X)
    assert [ids.tolist() for ids in graph.split.parts().values()] == [[2], [3], [0]]
    assert load(card, tmp_path, "h", seed=5).split.id == "h-1"  # 5 mod 4


def test_linkx_columns_are_one_hot_and_unknown_gender_is_unlabelled(tmp_path):
    info = np.array([[1, 2, 5, 0], [2, 1, 5, 0], [1, 0, 7, 9], [1, 2, 7, 0]])
    (tmp_path / "raw").mkdir()
    adjacency = sp.csc_matrix((np.ones(5), (SRC, DST)), shape=(4, 4))
    scipy.io.savemat(tmp_path / "raw" / "data.mat", {"A": adjacency, "local_info": info})
    graph = load(card_file(tmp_path, "linkx"), tmp_path)
    columns = [info[:, i : i + 1] == np.unique(info[:, i]) for i in (0, 2, 3)]
    np.testing.assert_array_equal(dense(graph.x), np.concatenate(columns, axis=1))
    assert graph.y.tolist() == [1, 0, -1, 1]
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))


def write_saint(folder, class_map, task="multiclass"):
    raw = folder / "raw"
    raw.mkdir()
    adj = sp.csr_array((np.ones(5), (SRC, DST)), shape=(4, 4))
    shape = np.array(adj.shape)
    np.savez(
        raw / "adj_full.npz", data=adj.data, indices=adj.indices, indptr=adj.indptr, shape=shape
    )
    np.save(raw / "feats.npy", X.astype(np.float64))
    (raw / "class_map.json").write_text(json.dumps(class_map))
    (raw / "role.json").write_text(json.dumps({"tr": [2, 0], "va": [1], "te": [3]}))
    splits = '[splits]\ndefault = "public"\npublic = {read = "reader"}\n'
    return card_file(folder, "saint", splits=splits, top={"task": task})


def test_saint_reads_classes_roles_and_edges(tmp_path):
    graph = load(write_saint(tmp_path, {str(i): int(c) for i, c in enumerate(Y)}), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    assert graph.y.tolist() == Y.tolist()
    assert graph.y.dtype == torch.int64
    assert graph.split.train.tolist() == [0, 2]
    assert graph.x.dtype == torch.float32


def test_saint_reads_several_labels_a_node(tmp_path):
    table = {"0": [1, 0], "1": [1, 1], "2": [0, 0], "3": [0, 1]}
    graph = load(write_saint(tmp_path, table, "multilabel"), tmp_path)
    assert graph.y.tolist() == list(table.values())
    assert graph.num_classes == 2


def test_saint_label_of_a_node_outside_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"class_map\.json labels a node outside 0\.\.3"):
        load(write_saint(tmp_path, {"9": 1}), tmp_path)


def test_dgl_reddit_form(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    sp.save_npz(raw / "r_graph.npz", sp.coo_matrix((np.ones(5), (SRC, DST)), shape=(4, 4)))
    kinds = np.array([1, 1, 2, 3])
    np.savez(raw / "r_data.npz", feature=X, label=Y, node_types=kinds, node_ids=np.arange(4))
    splits = '[splits]\ndefault = "public"\npublic = {read = "reader"}\n'
    graph = load(card_file(tmp_path, "dgl", splits=splits, reader={"prefix": "r"}), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    assert [ids.tolist() for ids in graph.split.parts().values()] == [[0, 1], [2], [3]]


def write_ogb(folder, **files):
    raw = folder / "raw"
    contents = {
        "edge": rows(np.stack([SRC, DST], axis=1)),
        "num-node-list": "4\n",
        "node-label": "0\nnan\n1\n2\n",
        "node-feat": rows(X),
        "node_year": rows(np.array([2012, 2014, 2017, 2020])),
    }
    for name, text in (contents | files).items():
        gz(raw / f"{name}.csv.gz", text)
    for part, text in (("train", "2\n0\n"), ("valid", "3\n"), ("test", "")):
        gz(folder / "split" / "time" / f"{part}.csv.gz", text or "3\n")


def test_ogb_csv_reads_edges_labels_years_and_features(tmp_path):
    write_ogb(tmp_path)
    graph = load(card_file(tmp_path, "ogb"), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    np.testing.assert_array_equal(dense(graph.x), X)
    assert graph.y.tolist() == [0, -1, 1, 2]
    assert graph.node_attrs["year"].tolist() == [2012, 2014, 2017, 2020]


def test_ogb_labels_by_bounds(tmp_path):
    write_ogb(tmp_path)
    reader = {"label_file": "node_year.csv.gz", "label_bounds": [2014, 2016, 2018, 2019]}
    graph = load(card_file(tmp_path, "ogb", reader=reader), tmp_path, features="none")
    assert graph.y.tolist() == [0, 1, 2, 4]
    assert graph.x is None


def test_ogb_ranked_guesses(tmp_path):
    write_ogb(tmp_path)
    (tmp_path / "guesses.csv").write_text("1,0\n\n2\n0,1\n")
    reader = {"guesses": "guesses.csv", "ranks": 2, "among": 3}
    x = dense(load(card_file(tmp_path, "ogb", reader=reader), tmp_path).x)
    assert [np.flatnonzero(row).tolist() for row in x] == [[1, 3], [], [2], [0, 4]]


@pytest.mark.parametrize(
    "text", ["1,0\n\n2\n0,3\n", "1,0\n\n2\n0,1,1\n", "1\n", "1,0\n\n2\nzero\n"]
)
def test_ogb_guesses_that_do_not_fit_are_refused(tmp_path, text):
    write_ogb(tmp_path)
    (tmp_path / "guesses.csv").write_text(text)
    reader = {"guesses": "guesses.csv", "ranks": 2, "among": 3}
    with pytest.raises(DataError, match=r"guesses\.csv is corrupt"):
        load(card_file(tmp_path, "ogb", reader=reader), tmp_path)


def test_overlapping_split_files_are_refused(tmp_path):
    write_ogb(tmp_path)
    splits = '[splits]\ndefault = "time"\ntime = {read = "csv-folder", file = "split/time"}\n'
    with pytest.raises(DataError, match=r"split time of tiny: node 3 is in two splits"):
        load(card_file(tmp_path, "ogb", splits=splits), tmp_path)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("store", [False, True])
def test_ogb_npz_form_is_streamed(tmp_path, monkeypatch, compress, store):
    from graphdyn.data.readers import ogb

    monkeypatch.setattr(ogb, "PIECE", 16)  # pieces of two edges and one row
    (tmp_path / "raw").mkdir()
    compress(
        tmp_path / "raw" / "data.npz",
        edge_index=np.stack([SRC, DST]),
        node_feat=X,
        num_nodes_list=np.array([4]),
        node_year=np.array([[2001], [2002], [2003], [2004]]),
    )
    label = np.array([[0.0], [np.nan], [1.0], [2.0]], np.float32)
    compress(tmp_path / "raw" / "node-label.npz", node_label=label)
    card = card_file(tmp_path, "ogb", reader={"form": "npz"}, graph={"undirected": True})
    graph = load(card, tmp_path, store=store)
    assert edges_of(graph) == both_ways(SRC.tolist(), DST.tolist())
    np.testing.assert_array_equal(dense(graph.x), X)
    assert graph.y.tolist() == [0, -1, 1, 2]
    assert graph.node_attrs["year"].tolist() == [2001, 2002, 2003, 2004]


def test_a_streamed_array_shorter_than_its_header_says_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    out = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (2, 5)}
    np.lib.format.write_array_header_1_0(out, header)
    out.write(np.stack([SRC, DST]).astype("<i8").tobytes()[:-16])
    np.savez(tmp_path / "raw" / "data.npz", node_feat=X, num_nodes_list=np.array([4]))
    with zipfile.ZipFile(tmp_path / "raw" / "data.npz", "a") as bundle:
        bundle.writestr("edge_index.npy", out.getvalue())
    np.savez(tmp_path / "raw" / "node-label.npz", node_label=Y.astype(np.float32)[:, None])
    card = card_file(tmp_path, "ogb", reader={"form": "npz"})
    with pytest.raises(DataError, match=r"data\.npz is corrupt or truncated .16 bytes are missing"):
        load(card, tmp_path)


def test_nan_in_streamed_features_names_the_node(tmp_path):
    (tmp_path / "raw").mkdir()
    bad = X.copy()
    bad[2, 1] = np.nan
    parts = {"edge_index": np.stack([SRC, DST]), "num_nodes_list": np.array([4])}
    np.savez(tmp_path / "raw" / "data.npz", node_feat=bad, **parts)
    np.savez(tmp_path / "raw" / "node-label.npz", node_label=Y.astype(np.float32)[:, None])
    card = card_file(tmp_path, "ogb", reader={"form": "npz"})
    with pytest.raises(DataError, match="x of node 2 holds NaN"):
        load(card, tmp_path)
    assert load(card, tmp_path, features="none").num_edges == 5


def test_wikics_json(tmp_path):
    (tmp_path / "raw").mkdir()
    links = [[1], [2], [0], [0, 3]]
    masks = {"train_masks": [[1, 0, 0, 0], [0, 1, 0, 0]], "val_masks": [[0, 1, 0, 0], [1, 0, 0, 0]]}
    content = {
        "features": X.tolist(),
        "labels": Y.tolist(),
        "links": links,
        "test_mask": [0, 0, 1, 1],
    }
    (tmp_path / "raw" / "data.json").write_text(json.dumps(content | masks))
    splits = '[splits]\ndefault = "w-0"\nw = {read = "reader", count = 2}\n'
    graph = load(card_file(tmp_path, "wikics", splits=splits), tmp_path, "w-1")
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    assert [ids.tolist() for ids in graph.split.parts().values()] == [[1], [0], [2, 3]]


def test_geom_gcn_text(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    nodes = "node\tfeature\tlabel\n1\t2\t1\n0\t0,2\t0\n3\t0,0\t2\n2\t1\t1\n"
    (raw / "out1_node_feature_label.txt").write_text(nodes)
    edges = "a\tb\n0\t1\n1\t2\n2\t0\n3\t0\n3\t3\n0\t1\n"
    (raw / "out1_graph_edges.txt").write_text(edges)
    graph = load(card_file(tmp_path, "geom-gcn", graph={"coalesce": True}), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    np.testing.assert_array_equal(dense(graph.x), [[1, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert graph.y.tolist() == [0, 1, 1, 2]


def test_ppi_joins_tissues_without_edges_between_them(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, part in enumerate(("train", "valid", "test")):
        links = [{"source": 0, "target": 1}, {"source": 1, "target": 1}]
        content = {"directed": False, "links": links, "nodes": [{"id": 0}, {"id": 1}]}
        (raw / f"{part}_graph.json").write_text(json.dumps(content))
        np.save(raw / f"{part}_feats.npy", np.full((2, 3), float(number)))
        np.save(raw / f"{part}_labels.npy", np.array([[1, 0], [0, 1]]))
        np.save(raw / f"{part}_graph_id.npy", np.array([number, number]))
    splits = '[splits]\ndefault = "inductive"\ninductive = {read = "reader"}\n'
    rules = {"coalesce": True, "drop_loops": True}
    card = card_file(tmp_path, "ppi", splits=splits, top={"task": "multilabel"}, graph=rules)
    graph = load(card, tmp_path)
    assert edges_of(graph) == [(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)]
    assert [ids.tolist() for ids in graph.split.parts().values()] == [[0, 1], [2, 3], [4, 5]]
    assert graph.node_attrs["tissue"].tolist() == [0, 0, 1, 1, 2, 2]
    assert graph.task == "multilabel"


@pytest.mark.parametrize("weighted", [False, True])
def test_edge_list_of_csv_files(tmp_path, weighted):
    weight = np.array([0.5, 1.5, 2.0, 3.0, 4.0])
    table = np.stack([SRC, DST] + [weight] * weighted, axis=1)
    (tmp_path / "edges.csv").write_text(rows(table))
    gz(tmp_path / "features.csv.gz", rows(X))
    np.save(tmp_path / "labels.npy", Y)
    for part, ids in (("train", "0\n"), ("valid", "1\n"), ("test", "3\n2\n")):
        (tmp_path / f"{part}.csv").write_text(ids)
    splits = '[splits]\ndefault = "mine"\nmine = {read = "reader"}\n'
    graph = load(card_file(tmp_path, "edge-list", splits=splits), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))
    np.testing.assert_array_equal(dense(graph.x), X)
    assert graph.split.test.tolist() == [2, 3]
    if weighted:
        got = dict(zip(edges_of(graph), graph.edge_weight.tolist(), strict=True))
        by_target = sorted(zip(DST.tolist(), SRC.tolist(), weight.tolist(), strict=True))
        assert list(graph.edge_weight.tolist()) == [w for *_, w in by_target]
        assert len(got) == 5
    else:
        assert graph.edge_weight is None


def test_loops_go_with_their_weights(tmp_path):
    (tmp_path / "edges.csv").write_text("0,1,0.5\n1,1,9\n2,0,2\n")
    graph = load(card_file(tmp_path, "edge-list", graph={"drop_loops": True}), tmp_path)
    assert edges_of(graph) == [(0, 1), (2, 0)]
    assert graph.edge_weight.tolist() == [2.0, 0.5]  # by target


def test_counts_of_the_card_are_of_edges_as_stored(tmp_path):
    (tmp_path / "edges.csv").write_text("0,1\n1,2\n")
    card = card_file(tmp_path, "edge-list", counts={"nodes": 3, "edges": 2})
    assert load(card, tmp_path).num_edges == 2
    assert load(card, tmp_path, undirected=True).num_edges == 4


def test_edge_list_of_one_npz_in_pyg_order(tmp_path):
    np.savez(tmp_path / "g.npz", edge_index=np.stack([SRC, DST]), features=X, labels=Y)
    graph = load(card_file(tmp_path, "edge-list", reader={"file": "g.npz"}), tmp_path)
    assert edges_of(graph) == sorted(zip(SRC.tolist(), DST.tolist(), strict=True))


def test_edge_list_without_anything_else_is_a_bare_graph(tmp_path):
    (tmp_path / "edges.csv").write_text("0,1\n1,2\n")
    graph = load(card_file(tmp_path, "edge-list", graph={"undirected": True}), tmp_path)
    assert (graph.num_nodes, graph.num_edges, graph.x, graph.y) == (3, 4, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n1,x\n", "edges.csv is corrupt"),
        ("0,1\n1\n", "edges.csv is corrupt"),
        ("0,1.5\n", "not whole numbers"),
        ("0\n1\n", "expected .E, 2."),
        ("0,1\n9,0\n", "edge 1 is 9 -> 0, but node ids must lie in 0..3"),
        ("0,1\n-1,0\n", "edge 1 is -1 -> 0"),
    ],
)
def test_bad_edge_lists_are_explained(tmp_path, text, message):
    (tmp_path / "edges.csv").write_text(text)
    np.save(tmp_path / "labels.npy", Y)
    with pytest.raises(DataError, match=message):
        load(card_file(tmp_path, "edge-list"), tmp_path)


def test_nan_features_name_set_and_node(tmp_path):
    bad = X.copy()
    bad[3, 0] = np.inf
    with pytest.raises(DataError, match="tiny: x of node 3 holds NaN or infinity"):
        load(write_heterophilous(tmp_path, x=bad), tmp_path)


def test_a_size_that_differs_from_the_card_is_named(tmp_path):
    card = write_heterophilous(tmp_path)
    with open(card, "a") as file:
        file.write("[counts]\nedges = 8\n")
    with pytest.raises(DataError, match="tiny has 9 edges, but its card says 8"):
        load(card, tmp_path)


def test_labels_beyond_the_classes_of_the_card_are_named(tmp_path):
    card = write_heterophilous(tmp_path)
    with open(card, "a") as file:
        file.write("[counts]\nclasses = 2\n")
    with pytest.raises(DataError, match=r"labels span 0\.\.2; expected 0\.\.1"):
        load(card, tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_truncated_npz_is_named(tmp_path, keep):
    card = write_npz(tmp_path)
    path = tmp_path / "raw" / "tiny.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"tiny\.npz is corrupt or truncated"):
        load(card, tmp_path)


@pytest.mark.parametrize("name", ["edge", "node-feat", "node-label", "num-node-list"])
def test_a_truncated_gzip_is_named(tmp_path, name):
    write_ogb(tmp_path, **{"node-label": "0\n" * 4})
    path = tmp_path / "raw" / f"{name}.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{name}\.csv\.gz is corrupt or truncated"):
        load(card_file(tmp_path, "ogb"), tmp_path)


@pytest.mark.parametrize("name", ["node-feat", "node-label"])
def test_a_table_with_missing_rows_is_named(tmp_path, name):
    write_ogb(tmp_path, **{name: "1\n1\n"})
    with pytest.raises(DataError, match=rf"{name}\.csv\.gz has 2 rows for 4 nodes"):
        load(card_file(tmp_path, "ogb"), tmp_path)


def test_a_missing_raw_file_is_named(tmp_path):
    write_ogb(tmp_path)
    (tmp_path / "raw" / "edge.csv.gz").unlink()
    with pytest.raises(DataError, match=r"raw file .*edge\.csv\.gz is missing"):
        load(card_file(tmp_path, "ogb"), tmp_path)


class Evil:
    """A pickle that would run a command when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def write_planetoid(folder, **changes):
    raw = folder / "raw"
    raw.mkdir()
    one_hot = np.eye(3, dtype=np.int32)
    parts = {
        "allx": sp.csr_matrix(X[:2]),
        "ally": one_hot[Y[:2]],
        "x": sp.csr_matrix(X[:1]),
        "y": one_hot[Y[:1]],
        "tx": sp.csr_matrix(X[2:]),
        "ty": one_hot[Y[2:]],
        "graph": {0: [1], 1: [2, 2], 2: [0], 3: [0, 3]},
    }
    for name, value in (parts | changes).items():
        with (raw / f"ind.tiny.{name}").open("wb") as file:
            pickle.dump(value, file, protocol=2)
    (raw / "ind.tiny.test.index").write_text("3\n2\n")
    rules = {"coalesce": True, "drop_loops": True}
    return card_file(folder, "planetoid", reader={"prefix": "tiny"}, graph=rules)


def test_planetoid_test_rows_go_where_the_index_says(tmp_path):
    graph = load(write_planetoid(tmp_path), tmp_path)
    assert edges_of(graph) == [(0, 1), (1, 2), (2, 0), (3, 0)]
    # tx lists node 3 first, as test.index does.
    np.testing.assert_array_equal(dense(graph.x), X[[0, 1, 3, 2]])
    assert graph.y.tolist() == Y[[0, 1, 3, 2]].tolist()


def test_a_matrix_that_points_outside_itself_is_refused(tmp_path):
    bad = sp.csr_matrix(X[:2])
    bad.indices[0] = 1_000_000
    with pytest.raises(DataError, match=r"ind\.tiny\.allx is corrupt"):
        load(write_planetoid(tmp_path, allx=bad), tmp_path)


@pytest.mark.parametrize("part", ["allx", "graph", "ally"])
def test_a_pickle_that_imports_anything_else_is_refused_before_it_runs(tmp_path, part):
    marker = tmp_path / "ran"
    card = write_planetoid(tmp_path, **{part: Evil(marker)})
    with pytest.raises(DataError, match=rf"ind\.tiny\.{part}: the pickle asks for \w+\.system"):
        load(card, tmp_path)
    assert not marker.exists()


def test_a_pickle_hidden_in_an_array_is_refused(tmp_path):
    marker = tmp_path / "ran"
    bomb = np.array([Evil(marker)], dtype=object)
    card = write_planetoid(tmp_path, allx=bomb)
    with pytest.raises(DataError, match="the pickle asks for"):
        load(card, tmp_path)
    assert not marker.exists()


def test_an_object_array_of_splits_is_read_through_the_same_gate(tmp_path):
    good = np.array([{"train": [0], "valid": [1], "test": np.array([3, 2])}], dtype=object)
    np.save(tmp_path / "s.npy", good, allow_pickle=True)
    splits = '[splits]\ndefault = "l-0"\nl = {read = "index-dicts", file = "s.npy", count = 1}\n'
    np.savez(tmp_path / "g.npz", edges=np.stack([SRC, DST], axis=1), features=X, labels=Y)
    card = card_file(tmp_path, "edge-list", splits=splits, reader={"file": "g.npz"})
    assert load(card, tmp_path).split.test.tolist() == [2, 3]
    marker = tmp_path / "ran"
    np.save(tmp_path / "s.npy", np.array([Evil(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"s\.npy: the pickle asks for"):
        load(card, tmp_path)
    assert not marker.exists()


def test_features_can_be_asked_for_dense_or_sparse(tmp_path):
    card = write_heterophilous(tmp_path)
    assert isinstance(load(card, tmp_path, features="sparse").x, Sparse)
    assert isinstance(load(card, tmp_path, features="dense").x, torch.Tensor)
    with pytest.raises(InputError, match="features='thin' is not known"):
        load(card, tmp_path, features="thin")


def test_a_graph_without_edges_loads(tmp_path):
    card = write_heterophilous(tmp_path, edges=np.empty((0, 2), np.int64))
    assert load(card, tmp_path).num_edges == 0
