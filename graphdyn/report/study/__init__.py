"""The report of a study: table, figures for a paper, and one page that works offline; reads, never measures."""

from __future__ import annotations

from pathlib import Path

from graphdyn.files import replacing, writing


def write_report(folder: Path) -> Path:
    """Write ``table.md``, ``table.csv``, ``figures/`` and ``report.html`` of a study folder, finished or not.

    Only complete runs count; the others are listed with what became of them.

    Args:
        folder: With ``study.json`` and ``cells/<slug>/seed-<n>`` run folders.

    Returns:
        The path of the page.

    Raises:
        RecordError: If the folder holds no study, or cannot be written.
        InputError: If jinja2 or plotly is not installed; everything but the page is written then.
    """
    from graphdyn.report.study.accuracy import score
    from graphdyn.report.study.data import read_study
    from graphdyn.report.study.figures import draw_study
    from graphdyn.report.study.instruments import read_instruments
    from graphdyn.report.study.page import render
    from graphdyn.report.study.tables import comma, markdown
    from graphdyn.report.study.times import hit

    study = read_study(Path(folder))
    scores, hits = score(study), hit(study)
    _write(study.folder / "table.md", markdown(study, scores))
    _write(study.folder / "table.csv", comma(study, scores, hits))
    draw_study(study, scores, hits)
    page = study.folder / "report.html"
    _write(page, render(study, scores, hits, read_instruments(study)))
    return page


def print_report(folder: Path) -> None:
    """Write the report, then say what came out and where it lies."""
    from rich.console import Console
    from rich.table import Table

    from graphdyn.report.study.accuracy import score
    from graphdyn.report.study.data import read_study
    from graphdyn.report.study.tables import summary
    from graphdyn.report.study.words import headline

    page, study = write_report(folder), read_study(Path(folder))
    scores = score(study)
    head, console = headline(study, scores), Console()
    columns, lines = summary(study, scores)
    table = Table(caption=f"{study.part} {study.metric} in per cent, mean ± std over seeds")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "score" or name.startswith("p "))
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(f"[bold]{head.title}.[/] {head.text}", highlight=False)
    console.print(f"page: {page}", soft_wrap=True, highlight=False, markup=False)


def is_study(folder: Path) -> bool:
    """Whether a study has been written here."""
    return (Path(folder) / "study.json").is_file()


def _write(path: Path, text: str) -> None:
    with writing(path.parent), replacing(path) as part:
        part.write_text(text, encoding="utf-8")
