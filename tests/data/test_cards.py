"""Cards: all of them parse, say where their files come from, and name the nearest when unknown."""

import subprocess
import sys

import pytest

from graphdyn.data import available, card, info, load, names
from graphdyn.data.cards import parse_card
from graphdyn.data.readers import formats
from graphdyn.errors import DataError, InputError

ISSUE = [
    "cora",
    "citeseer",
    "pubmed",
    "cora-ml",
    "cora-full",
    "dblp",
    "amazon-photo",
    "amazon-computers",
    "coauthor-cs",
    "coauthor-physics",
    "wikics",
    "actor",
    "chameleon-filtered",
    "squirrel-filtered",
    "minesweeper",
    "tolokers",
    "roman-empire",
    "amazon-ratings",
    "questions",
    "reed98",
    "amherst41",
    "johnshopkins55",
    "cornell5",
    "penn94",
    "ppi",
    "flickr",
    "reddit",
    "yelp",
    "ogbn-arxiv",
    "arxiv-year",
    "ogbn-arxiv-tape",
    "ogbn-products",
    "ogbn-papers100m",
    "csbm",
]


def test_every_promised_set_has_a_card():
    assert set(ISSUE) <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_card_is_complete(name):
    one = card(name)
    assert one.format in [*formats(), "synthetic"]
    assert one.metric in ("accuracy", "f1-micro", "roc-auc")
    assert one.task in ("multiclass", "multilabel")
    assert one.citation
    assert one.title
    assert None not in (one.counts.nodes, one.counts.features, one.counts.classes)
    assert one.default_split is not None
    assert all(file.url for file in one.files)
    assert all(file.sha256 is None or len(file.sha256) == 64 for file in one.files)
    assert len({file.path for file in one.files}) == len(one.files)
    assert (one.format == "synthetic") == (not one.files)
    assert not any(".." in file.path or file.path.startswith("/") for file in one.files)


@pytest.mark.parametrize("name", names())
def test_every_stored_split_lists_the_files_it_needs(name):
    one = card(name)
    assert one.default_split in one.split_ids or one.default_split.startswith("random-")
    for scheme in one.schemes.values():
        needed = {file.path for file in one.files_for(scheme.ids[-1])}
        path = scheme.file.format(index=scheme.count - 1)
        assert not path or any(p == path or p.startswith(path + "/") for p in needed)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown data set 'coar'; did you mean cora"):
        load("coar")


def test_names_may_be_written_as_in_papers():
    assert card("ogbn-papers100M").name == "ogbn-papers100m"
    assert card("Cora") == card("cora")
    assert load("CSBM").name == "csbm"


@pytest.mark.parametrize("split", ["public", "geom-gcn-10", "geom-gcn", "random", "random-20"])
def test_a_split_that_a_set_lacks_is_answered_with_those_it_has(split):
    with pytest.raises(
        InputError, match=rf"minesweeper has no split '{split}'.*heterophilous-0 \.\."
    ):
        load("minesweeper", split=split)


@pytest.mark.parametrize(
    "text",
    ["name = ", 'name = "x"', 'name = "x"\nformat = "npz"\ncolour = "red"', "[[source]]\na=1"],
)
def test_a_broken_card_is_named(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"mine\.toml is not a valid data set card"):
        card(str(path))


def test_a_card_of_an_unknown_format_names_the_nearest(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nformat = "planetoids"\n')
    with pytest.raises(InputError, match="unknown format 'planetoids'; did you mean planetoid"):
        load(str(path), tmp_path)


def test_files_of_a_card_of_ones_own_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHDYN_DATA", "/nowhere")
    (tmp_path / "edges.csv").write_text("0,1\n")
    (tmp_path / "mine.toml").write_text('name = "mine"\nformat = "edge-list"\n')
    assert load(str(tmp_path / "mine.toml")).num_edges == 1


def test_an_absent_card_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read the card"):
        card(str(tmp_path / "none.toml"))


def test_archive_members_are_found_by_prefix():
    text = (
        'name = "x"\nformat = "ogb"\n[[source]]\ninto = "f"\narchive = "http://h/a.zip"\n'
        'inside = "a/"\n[source.files]\n"raw/e.csv.gz" = ""\n'
    )
    (file,) = parse_card(text, "x").files
    expected = ("f/raw/e.csv.gz", "http://h/a.zip", "a/raw/e.csv.gz", None)
    assert (file.path, file.url, file.member, file.sha256) == expected


def test_info_tells_what_a_user_asks(tmp_path):
    about = info("ogbn-arxiv", tmp_path)
    assert about["edges"] == 2_315_598
    assert about["splits"] == ["time"]
    assert about["available"] is False
    assert about["folder"] == str(tmp_path / "ogbn_arxiv")
    assert available("csbm", tmp_path)


def test_the_data_root_is_the_argument_then_the_variable_then_the_cache(monkeypatch, tmp_path):
    from graphdyn.data import cache_folder, data_root

    monkeypatch.setenv("GRAPHDYN_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("GRAPHDYN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root().parent == cache_folder() == tmp_path / "graphdyn"


def test_importing_the_data_package_loads_nothing_heavy():
    heavy = [
        "scipy",
        "pandas",
        "torch_geometric",
        "pyarrow",
        "networkx",
        "ogb",
        "rich",
        "numba",
        "matplotlib",
    ]
    code = f"import sys, graphdyn.data; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
