"""What was compared and how, what went wrong, and how to get each number again."""

from __future__ import annotations

from typing import Any, NamedTuple

from graphdyn.config import EXECUTION_ONLY, Config
from graphdyn.report.study.accuracy import PERCENT
from graphdyn.report.study.data import Cell, Study
from graphdyn.report.study.words import amount, count, listed
from graphdyn.report.tables import read_run


class Failure(NamedTuple):
    """A run without a result."""

    cell: str
    seed: int
    kind: str
    reason: str


# What a score means, for readers who have never seen one.
MEANING = {
    "accuracy": "the share of nodes whose class it predicts correctly",
    "roc-auc": "how well it ranks nodes of a class above others (area under the ROC curve)",
    "f1-micro": "how well it finds the labels of nodes (micro-averaged F1)",
}


def about(study: Study) -> str:
    """What was done, for a reader who knows nothing of it."""
    seeds, methods, datasets = len(study.document["seeds"]), len(study.methods), len(study.datasets)
    return (
        f"{count(methods, 'way')} to train graph neural networks, each on {count(datasets, 'graph')} with "
        f"{count(seeds, 'random seed')}, the same seeds for all. A run is scored by "
        f"{MEANING.get(study.metric, study.metric)} among the {study.part} nodes, in per cent: higher is better, and a "
        f"point is one per cent. Brackets are {PERCENT} intervals: where the true value plausibly lies."
    )


def setup(study: Study) -> list[tuple[str, str]]:
    """What was compared and how, a line a fact."""
    document, runs = study.document, study.runs
    seeds = document["seeds"]
    facts = [
        ("Data sets", _datasets(study)),
        ("Methods", f"{', '.join(study.methods)}"),
        (
            "Baseline",
            study.baseline + ("" if study.chosen else " (the first: the study names none)"),
        ),
        ("Budget a run", _budget(document.get("budget") or {})),
        (
            "Seeds",
            f"{len(seeds)}: {_ranges(seeds)}, the same for all methods (split, weights, order of targets)",
        ),
        ("Selection", _selection(study)),
        ("Tuning", _tuning(document.get("tuning"))),
        ("Runs", f"{len(runs)} of {study.planned} complete{_lost(study)}"),
        ("Machine", _pairs(document.get("machine")) or _devices(study)),
        ("Versions", _pairs(document.get("versions"))),
    ]
    return [(name, text) for name, text in facts if text]


def failures(study: Study) -> list[Failure]:
    """Every run without a result, lost ones first."""
    found = [
        (m.lost, Failure(c.name, m.seed, m.kind, m.reason))
        for c in study.cells.values()
        for m in c.missing
    ]
    return [failure for _, failure in sorted(found, key=lambda pair: not pair[0])]


def reproduction(study: Study) -> list[tuple[str, str, str]]:
    """Cell, what its runs were given, and their folders relative to the study."""
    return [
        (cell.name, _pairs(_given(cell)), f"cells/{cell.slug}/seed-*")
        for cell in study.cells.values()
    ]


def _given(cell: Cell) -> dict[str, Any]:
    """Of a run, since tuning may have changed what the study says; of the study before the first run."""
    folders = [run.folder for run in cell.runs.values()]
    if not folders or not (folders[0] / "config.json").is_file():
        return cell.config
    own, default = read_run(folders[0])["config"], Config().canonical()
    hidden = EXECUTION_ONLY | {"first_seed"}
    return {n: v for n, v in own.items() if n in default and n not in hidden and v != default[n]}


def _datasets(study: Study) -> str:
    told = []
    for dataset in study.datasets:
        cells = [study.cell(dataset, m) for m in study.methods]
        splits = sorted(
            {s for c in cells if c for r in c.runs.values() for s in r.summary.get("split", [])}
        )
        several = (
            f"{len(splits)} splits, {splits[0]} to {splits[-1]}"
            if len(splits) > 3
            else ", ".join(splits)
        )
        told.append(
            f"{dataset} (split {several})"
            if len(splits) == 1
            else f"{dataset} ({several})"
            if splits
            else dataset
        )
    return ", ".join(told)


def _budget(budget: dict[str, Any]) -> str:
    known = [
        amount(v, k) + ("" if k in ("seconds", "bytes") else f" {k}")
        for k, v in budget.items()
        if v
    ]
    return (
        (listed(known) + ", the same for all methods")
        if known
        else "none: each method ends by its own rule"
    )


def _selection(study: Study) -> str:
    rules = [
        (c.config.get("select", Config.select), c.config.get("patience", Config.patience))
        for c in study.cells.values()
    ]
    told = []
    for select, patience in dict.fromkeys(rules):
        by = study.metric if select == "metric" else "loss"
        stop = (
            f"; a run stops after {patience} evaluations without a better one" if patience else ""
        )
        told.append(
            f"{study.part} {study.metric} at the evaluation with the best validation {by}, the first of equals{stop}"
        )
    return "; or ".join(told)


def _tuning(tuning: dict[str, Any] | None) -> str:
    return (
        f"every cell alike, on validation: {_pairs(tuning)}"
        if tuning
        else "none: settings as given"
    )


def _lost(study: Study) -> str:
    lost = sum(m.lost for c in study.cells.values() for m in c.missing)
    return f"; {count(lost, 'run')} failed or diverged (see Failures)" if lost else ""


def _devices(study: Study) -> str:
    return ", ".join(sorted({str(r.summary.get("device", "")) for r in study.runs}))


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return "" if values is None else str(values)
    return ", ".join(f"{k} {_value(v)}" for k, v in values.items() if v is not None)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + _pairs(value) + ")"
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def _ranges(seeds: list[int]) -> str:
    """``0 to 9`` where they follow one another."""
    following = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if following else ", ".join(map(str, seeds))
