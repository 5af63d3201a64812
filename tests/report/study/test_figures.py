"""Figures for a paper: all there, whole, and the same for the same study."""

from xml.etree import ElementTree

import pytest
from PIL import Image
from report.study.studies import imagined

from graphdyn.report.study import figures
from graphdyn.report.study.accuracy import score
from graphdyn.report.study.data import read_study
from graphdyn.report.study.times import hit

NAMES = {"accuracy", "cost", "time_to_target", "profile"}


def test_each_figure_is_there_as_png_and_svg(page):
    folder = page.parent / "figures"
    assert {p.name for p in folder.iterdir()} == {f"{n}.{k}" for n in NAMES for k in ("png", "svg")}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width >= 1400  # seven inches at 200 dots
            assert len(image.convert("L").getcolors(1 << 16)) > 10
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_study_gives_the_same_file(page, tmp_path, monkeypatch):
    study = read_study(page.parent)
    object.__setattr__(study, "folder", tmp_path)
    drawing = {"profile": figures.DRAWINGS["profile"]}
    monkeypatch.setattr(figures, "DRAWINGS", drawing)
    found = figures.draw_study(study, score(study), hit(study))
    for path in found:
        assert path.read_bytes() == (page.parent / "figures" / path.name).read_bytes()


@pytest.mark.parametrize("scores", [{("d", "a"): [0.5]}, {("d", "a"): [0.5], ("e", "b"): [0.6]}])
def test_little_data_is_no_reason_to_fail(scores, tmp_path):
    study = imagined(scores, "a")
    object.__setattr__(study, "folder", tmp_path)
    assert figures.draw_study(study, score(study), hit(study))
