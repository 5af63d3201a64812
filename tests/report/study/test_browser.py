"""The page in a real browser, without a network: charts, sorting, filtering, light and dark, paper."""

import os
import re
import shutil
from functools import partial

import pytest

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


def browser_path():
    """$GRAPHDYN_CHROMIUM, or the first Chromium on the path."""
    named = os.environ.get("GRAPHDYN_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api",
        reason="pip install 'graphdyn[browser]' to test the page in a browser",
    )
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium: install one (`apt install chromium`) or set GRAPHDYN_CHROMIUM")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def visit(browser, page):
    """Open the page; whatever went wrong or was asked for elsewhere fails the test."""
    contexts, complaints = [], []

    def open_page(**options):
        wide = {"viewport": {"width": 1280, "height": 900}}
        context = browser.new_context(**{**wide, **options})
        context.set_default_timeout(240_000)  # five megabytes on a busy machine
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", partial(_watch, complaints, page.as_uri()))
        tab.goto(page.as_uri())
        tab.wait_for_function("document.querySelectorAll('.plot svg.main-svg').length > 0")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _watch(complaints, uri, request):
    if not request.url.startswith((uri, "data:", "blob:")):
        complaints.append(f"asked for {request.url}")


def column(tab, place):
    cells = tab.locator(f"#table tbody tr:visible > :nth-child({place})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def test_every_chart_is_drawn(visit):
    tab = visit()
    places = tab.locator("[data-plot]")
    assert places.count() == 11
    for i in range(places.count()):
        place = places.nth(i)
        assert place.locator("svg.main-svg").count() >= 1
        marks = place.locator(".scatterlayer .trace, .barlayer .trace")
        assert marks.count() >= 1, place.get_attribute("data-plot")


def test_the_table_sorts(visit):
    tab = visit()
    head = tab.locator("#table thead th", has_text="score")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    found = [float(text.split(" ")[0]) for text in column(tab, 3)]
    assert found == sorted(found, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split(" ")[0]) for text in column(tab, 3)] == sorted(found)
    tab.locator("#table thead th button", has_text="method").press("Enter")  # by keyboard
    names = column(tab, 2)
    assert names == sorted(names)
    assert tab.locator("#table thead [aria-sort=ascending]").count() == 1


def test_the_table_filters(visit):
    tab = visit()
    assert tab.locator("#count").inner_text() == "9 of 9 rows"
    tab.fill("#filter", "gas cora")
    assert list(zip(column(tab, 1), column(tab, 2))) == [("cora", "gas")]
    assert tab.locator("#count").inner_text() == "1 of 9 rows"
    tab.fill("#filter", "")
    tab.select_option("#dataset", "citeseer")
    assert column(tab, 1) == ["citeseer"] * 3
    tab.fill("#filter", "nothing of the kind")
    assert column(tab, 1) == []


def test_switches_change_what_is_drawn(visit):
    tab = visit()
    axis = "[data-plot=reached] .xtitle"
    assert tab.locator(axis).text_content() == "optimiser steps"
    assert tab.locator("[data-axis=steps]").is_visible()
    tab.select_option("select[data-chart=reached][data-switch=axis]", "bytes")
    assert tab.locator(axis).text_content() == "bytes of features gathered"
    assert tab.locator("[data-axis=bytes]").is_visible()
    assert not tab.locator("[data-axis=steps]").is_visible()
    # both charts of a section show the same data set
    tab.select_option("select[data-chart=progress-seconds]", "citeseer")
    assert tab.locator("select[data-chart=progress-edges]").input_value() == "citeseer"


def colors(tab):
    """Of the page, and of what the first chart is drawn on and with."""
    back = "getComputedStyle(document.body).backgroundColor"
    paper = "document.querySelector('[data-plot=forest] .main-svg').style.background"
    text = "document.querySelector('[data-plot=forest] .xtitle').style.fill"
    return [tab.evaluate(script) for script in (back, paper, text)]


def themed(tab, name):
    """Wait: media queries tell the page a moment later."""
    tab.wait_for_function("name => document.documentElement.dataset.theme === name", arg=name)
    return [dark(c) for c in colors(tab)]


def dark(color):
    return sum(map(int, re.findall(r"\d+", color)[:3])) < 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(visit, scheme):
    tab = visit(color_scheme=scheme)
    expected = [scheme == "dark", scheme == "dark", scheme == "light"]
    assert [dark(c) for c in colors(tab)] == expected
    tab.click("#theme")
    assert [dark(c) for c in colors(tab)] == [not e for e in expected]


def test_the_system_may_change_its_mind(visit):
    tab = visit(color_scheme="light")
    tab.emulate_media(color_scheme="dark")
    assert themed(tab, "dark") == [True, True, False]


def test_it_prints_light_whole_and_without_controls(visit):
    tab = visit(color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert themed(tab, "light") == [False, False, True]
    assert not tab.locator("#theme").is_visible()
    assert not tab.locator("select").first.is_visible()
    for axis in ("steps", "edges", "seconds", "bytes"):
        assert tab.locator(f"[data-axis={axis}]").is_visible()  # there is no switch on paper
    pdf = tab.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4
    tab.emulate_media(media="screen", color_scheme="dark")
    assert themed(tab, "dark") == [True, True, False]


def test_nothing_is_wider_than_a_phone(visit):
    tab = visit(viewport={"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_charts_have_words_for_those_who_do_not_see_them(visit):
    tab = visit()
    for place in tab.locator("[data-plot]").all():
        assert len(place.get_attribute("aria-label")) > 30
        assert place.get_attribute("role") == "img"
    assert tab.locator("figure > figcaption").count() == tab.locator("figure").count()
    assert tab.locator("th:not([scope])").count() == 0
    assert tab.locator("label, [aria-label]").count() > 0
