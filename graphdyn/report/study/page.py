"""The page of a study: one file that needs nothing else, with every chart and table in it."""

from __future__ import annotations

import json
from typing import Any

from graphdyn.errors import InputError
from graphdyn.report.study.accuracy import Scores
from graphdyn.report.study.charts import UNITS, Chart
from graphdyn.report.study.cost_charts import ledger, progress, reached
from graphdyn.report.study.data import Study
from graphdyn.report.study.facts import about, failures, reproduction, setup
from graphdyn.report.study.instrument_charts import gradient_errors, lines
from graphdyn.report.study.instruments import Measurements
from graphdyn.report.study.score_charts import forest, improvements, profiles
from graphdyn.report.study.tables import ALL, COSTS, family, rows
from graphdyn.report.study.times import Hits
from graphdyn.report.study.words import (
    NOTES,
    amount,
    between,
    few,
    headline,
    p_value,
    share,
    signed,
)

# Points of a curve, and of the curves of all cells together: the page stays below 6 MB, of which plotly.js is 4.6.
CURVE, EVERY = 60, 4000

# Series that are drawn where they were measured: (place, title, caption), unit, and who measures them.
SERIES = {
    "effective_lr.effective_lr": (
        "effective-lr",
        "Effective learning rate",
        "How fast the direction of scale-invariant weights turns; dotted: the equilibrium that theory predicts.",
        "effective learning rate",
    ),
    "noise_scale.noise_scale": (
        "noise-scale",
        "Noise scale",
        "Targets a batch must have before its noise is no larger than its signal.",
        "noise scale (targets)",
    ),
    "staleness.error": (
        "staleness",
        "Staleness of remembered embeddings",
        "Distance between remembered rows and what they stand for, relative to the latter.",
        "|H − H̄| / |H|",
    ),
}


def render(study: Study, scores: Scores, hits: Hits, measured: Measurements) -> str:
    """The page as text.

    Raises:
        InputError: If jinja2 or plotly is not installed.
    """
    jinja, script = _tools()
    sections = _charts(study, scores, hits, measured)
    drawn = [chart for charts in sections.values() for chart in charts if chart is not None]
    figures = {c.id: {"variants": c.variants, "switches": c.switches} for c in drawn}
    environment = jinja.Environment(
        loader=jinja.PackageLoader("graphdyn.report.study"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "between": between,
        "signed": signed,
        "p": p_value,
        "share": share,
    }
    loader = environment.loader
    plain = {n: loader.get_source(environment, n)[0] for n in ("study.css", "study.js")}
    return environment.get_template("study.html").render(
        study=study,
        name=study.document.get("name") or "Study",
        head=headline(study, scores),
        charts=sections,
        rows=rows(study, scores),
        costs=COSTS,
        everything=ALL,
        units=UNITS,
        hits=hits,
        scores=scores,
        measured=measured,
        missing=_missing(study, measured),
        about=about(study),
        patient=any(cell.config.get("patience") for cell in study.cells.values()),
        setup=setup(study),
        failures=failures(study),
        reproduction=reproduction(study),
        family=family(study, scores),
        notes=NOTES,
        few=few,
        figures=json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        plotly=script,
        css=plain["study.css"],
        js=plain["study.js"],
    )


def _tools() -> tuple[Any, str]:
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(
            f"report.html takes {error.name}, which is not installed; run `pip install 'graphdyn[report]'`. "
            "table.md, table.csv and figures are written."
        ) from None
    return jinja2, get_plotlyjs()


def _charts(
    study: Study, scores: Scores, hits: Hits, measured: Measurements
) -> dict[str, list[Chart | None]]:
    return {
        "first": [forest(study, scores)],
        "sure": [improvements(study, scores), profiles(study, scores)],
        "cost": [
            progress(study, axis, _points(study))
            for axis in ("seconds", "edges")
            if axis in study.axes
        ],
        "times": [reached(study, hits)],
        "error": [gradient_errors(study, measured)],
        "series": [
            lines(study, measured, name, (place, title, caption), unit, _points(study))
            for name, (place, title, caption, unit) in SERIES.items()
        ],
        "ledger": [ledger(study)],
    }


def _points(study: Study) -> int:
    return max(6, min(CURVE, EVERY // max(len(study.cells), 1)))


def _missing(study: Study, measured: Measurements) -> list[tuple[str, str]]:
    """What was not measured, and what to switch on for it."""
    wanted = {
        "Error of a sampled gradient by cause": ("sampler_mse.mse", "sampler_mse"),
        **{SERIES[name][1]: (name, name.split(".")[0]) for name in SERIES},
    }
    found = []
    for title, (name, instrument) in wanted.items():
        if measured.series(name):
            continue
        reason = measured.refused.get(instrument)
        told = f"not measured; switch it on with --instruments {instrument}"
        found.append(
            (title, f"{instrument} could not measure it: {reason}" if reason else f"{told}.")
        )
    return found
