"""The page: one file, whole HTML, nothing from elsewhere, whatever state the study is in."""

import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
from report.study.studies import Truth, imagined, write_study

from graphdyn.cli import main
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.report.study import write_report
from graphdyn.report.study.accuracy import score
from graphdyn.report.study.instruments import Measurements
from graphdyn.report.study.page import render
from graphdyn.report.study.times import hit

EMPTY = {"meta", "link", "br", "input", "hr", "img"}


class Reader(HTMLParser):
    """Tags in balance, text outside of scripts, and what is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.fetched, self.heads = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action") and not value.startswith(("#", "data:")):
                self.fetched.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data.strip())
            if self.open[-1] in ("h1", "h2"):
                self.heads.append(data.strip())


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def words(reader):
    return re.sub(r"\s+", " ", " ".join(reader.text))


def test_it_is_whole_small_and_alone(page):
    html = page.read_text(encoding="utf-8")
    assert len(html.encode()) < 6_000_000
    reader = read(html)
    assert reader.fetched == []
    css = html[html.index("<style>") : html.index("</style>")]
    assert "@import" not in css
    assert "url(" not in css
    assert "default-src 'none'" in html
    assert html.count("<script>") == 2  # plotly.js once, and its own


def test_what_it_says_and_in_which_order(page):
    reader = read(page.read_text(encoding="utf-8"))
    assert reader.heads == [
        "gas wins",
        "What was compared, and how",
        "Results",
        "Score against cost",
        "Time to target",
        "What instruments saw",
        "Where the time went",
        "Theory against measurement",
        "Failures",
        "How to reproduce each number",
    ]
    said = words(reader)
    for sentence in (
        "3 ways to train graph neural networks, each on 2 graphs with 6 random seeds",
        "cora (split public), citeseer (split public)",
        "200 steps, the same for all methods",
        "test accuracy at the evaluation with the best validation accuracy",
        "32 of 36 complete; 2 runs failed or diverged",
        "MemoryError: no memory <left> & lost. (2 attempts)",
        "graphdyn study study.toml --out study",
        "4 tests of cells, and 3 tests of all pairs",
        "p raised by Holm's method for 8 tests",
        "cells/cora-gcn-gas/seed-*",
        "2 of 3 predictions agree",
    ):
        assert sentence in said, sentence


def test_a_half_done_study_has_a_report(tmp_path):
    pytest.importorskip("plotly")
    late = tuple(("cora", m, s) for m in ("neighbor", "gas") for s in (1, 2))
    truth = Truth(datasets={"cora": 0.8}, seeds=3, absent=late, failed=(), instruments=False)
    page = write_report(write_study(tmp_path / "study", truth))
    said = words(read(page.read_text(encoding="utf-8")))
    assert "too early to tell" in said
    assert "leads so far" in said
    assert "8 of 12 complete" in said
    assert "the run has not begun." in said
    assert "Noise scale: not measured; switch it on with --instruments noise_scale." in said
    assert "No instrument made a prediction" in said


def test_a_study_that_has_not_begun_has_a_report(tmp_path):
    pytest.importorskip("plotly")
    nothing = tuple(("cora", m, 0) for m in Truth().methods)
    truth = Truth(datasets={"cora": 0.8}, seeds=1, absent=nothing, failed=(), baseline=None)
    page = write_report(write_study(tmp_path / "study", truth))
    said = words(read(page.read_text(encoding="utf-8")))
    assert "No comparison yet" in said
    assert (page.parent / "table.md").is_file()


def test_many_cells_stay_small():
    pytest.importorskip("plotly")
    noise = Key(6).fold("page").numpy().normal(size=(12, 12, 3))
    steps = [float(s) for s in range(1, 41)]
    keys = [(f"d{i}", f"m{j}") for i in range(12) for j in range(12)]
    scores = {k: 0.7 + noise[i // 12, i % 12] / 100 for i, k in enumerate(keys)}
    curves = {
        k: [(steps, [v * (1 - 0.5**s) for s in steps]) for v in own] for k, own in scores.items()
    }
    study = imagined(scores, "m0", curves)
    html = render(study, score(study), hit(study), Measurements({}, [], {}))
    assert len(html.encode()) < 6_000_000


def test_names_cannot_break_out_of_the_page():
    pytest.importorskip("plotly")
    evil = "</script><script>alert(1)</script>"
    study = imagined({("d", "a"): [0.5, 0.6, 0.7], ("d", evil): [0.4, 0.6, 0.6]}, "a")
    html = render(study, score(study), hit(study), Measurements({}, [], {}))
    assert "<script>alert" not in html
    assert evil in words(read(html))


@pytest.mark.parametrize("name", ["jinja2", "plotly"])
def test_without_its_libraries_there_is_advice_and_a_table(folder, tmp_path, monkeypatch, name):
    copy = shutil.copytree(folder, tmp_path / "study", ignore=shutil.ignore_patterns("report.html"))
    monkeypatch.setitem(sys.modules, name, None)
    if name == "plotly":
        monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setattr("graphdyn.report.study.figures.DRAWINGS", {})
    with pytest.raises(InputError, match=r"pip install 'graphdyn\[report\]'"):
        write_report(copy)
    assert (copy / "table.md").is_file()
    assert not (copy / "report.html").exists()


def test_the_command_prints_the_table_and_the_page(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("plotly")
    monkeypatch.setattr("graphdyn.report.study.figures.DRAWINGS", {})
    monkeypatch.setenv("COLUMNS", "80")
    copy = shutil.copytree(folder, tmp_path / "study")
    assert main(["report", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "gas wins." in out
    assert f"page: {copy / 'report.html'}" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
