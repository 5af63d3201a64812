"""The command line of studies: a file, the folder of a study, or flags for a simple grid."""

from __future__ import annotations

import argparse
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphdyn.config import BUDGETS
from graphdyn.errors import GraphdynError, InputError
from graphdyn.executors import EXECUTORS, Executor, build
from graphdyn.grid import Study
from graphdyn.study import Plan, default_workers, run_study
from graphdyn.study_folder import spec_of

# No file, no data, one core, under a minute: the whole path.
TINY = Study(
    name="tiny",
    seeds=2,
    budget={"steps": 30, "evaluations": 10},
    base={"dataset": "csbm", "model": "gcn", "hidden": 16},
    methods=[
        {"name": "full", "sampler": "full"},
        {"name": "neighbor", "sampler": "neighbor", "fanouts": "5,5", "batch_size": 70},
        {"name": "gas", "preset": "gas", "sampler_options": {"parts": 8, "parts_per_batch": 2}},
    ],
    baseline={"method": "full"},
)


def main(args: Sequence[str]) -> None:
    """``graphdyn study``.

    Raises:
        GraphdynError: If the study cannot be run, or some of its runs failed.
    """
    options = _parser().parse_args(args)
    study = _study(options)
    folder = options.out or _own_folder(options) or Path("runs") / study.name
    plan = run_study(
        study,
        folder,
        executor=_executor(options, folder),
        retry_failed=options.retry_failed,
        dry_run=options.dry_run,
        command=shlex.join(["graphdyn", "study", *args]),
    )
    if not options.dry_run:
        _finish(plan)


def _finish(plan: Plan) -> None:
    """Report, and what failed."""
    from graphdyn.report.study import write_report

    if plan.done:
        page = write_report(plan.folder)
        print((plan.folder / "table.md").read_text())
        print(f"report: {page}")
    failed = plan.failed
    for unit in failed[:20]:
        print(f"failed: {unit.cell}, seed {unit.seed}: see {unit.failure}")
    if failed:
        raise GraphdynError(
            f"{len(failed)} of {len(plan.units)} runs failed; --retry-failed tries them again."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "graphdyn study",
        description="Compare methods under matched budgets and paired seeds; the same command goes on "
        "where it was stopped.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("study", nargs="?", type=Path, help="study file (TOML), or folder of a study")
    add("--out", type=Path, help="folder of the study (default: runs/NAME)")
    add("--workers", type=int, help="runs at a time (default: cores but one)")
    add("--executor", choices=EXECUTORS, default="local", help="who runs it")
    add("--attempts", type=int, default=3, help="how often a run is begun when its worker dies")
    add("--dry-run", action="store_true", help="say what it would do and how long, write nothing")
    add("--retry-failed", action="store_true", help="try failed runs again")
    add(
        "--tiny", action="store_true", help="a study of seconds, without file or data: does it run?"
    )
    grid = parser.add_argument_group("instead of a file")
    grid.add_argument("--grid", nargs="+", metavar="FIELD=A,B", help="values of an axis")
    grid.add_argument("--base", nargs="+", metavar="FIELD=VALUE", help="for all cells")
    grid.add_argument(
        "--baseline", nargs="+", metavar="LABEL=VALUE", help="what others are compared with"
    )
    grid.add_argument("--name", help="of the study (default: study)")
    grid.add_argument("--seeds", type=int, help="how many (default: 5)")
    grid.add_argument("--first-seed", type=int, help="the first of them (default: 0)")
    grid.add_argument("--target", type=float, help="validation value whose time of arrival counts")
    for name in (*BUDGETS, "epochs", "evaluations"):
        kind = float if name == "seconds" else int
        grid.add_argument(f"--{name}", type=kind, help=f"budget of each run: {name}")
    cluster = parser.add_argument_group("clusters")
    cluster.add_argument(
        "--ray-address", help="of a running cluster (default: $RAY_ADDRESS, else here)"
    )
    cluster.add_argument("--slurm", nargs="+", metavar="OPTION=VALUE", default=[],
                         help="partition, time (minutes), gpus, cpus, memory (GB), cluster=local to try")  # fmt: skip
    return parser


_FLAGS = ("grid", "base", "baseline", "name", "seeds", "first_seed", "target", *BUDGETS, "epochs",
          "evaluations")  # fmt: skip


def _study(options: argparse.Namespace) -> Study:
    flags = [name for name in _FLAGS if getattr(options, name) is not None]
    ways = [options.study is not None, options.tiny, bool(flags)]
    if sum(ways) != 1:
        raise InputError("give a study file, or --tiny, or flags with --grid: exactly one of them.")
    if options.tiny:
        return TINY
    if options.study is None:
        return _of_flags(options)
    return spec_of(options.study) if options.study.is_dir() else Study.from_toml(options.study)


def _of_flags(options: argparse.Namespace) -> Study:
    budget = {name: getattr(options, name) for name in (*BUDGETS, "epochs", "evaluations")}
    grid = {name: _values(text) for name, text in _pairs("--grid", options.grid)}
    study = Study(
        name=options.name or "study",
        budget={name: value for name, value in budget.items() if value is not None},
        base={name: _value(text) for name, text in _pairs("--base", options.base)},
        grid=grid,
        target=options.target,
    )
    baseline = {name: _value(text) for name, text in _pairs("--baseline", options.baseline)}
    seeds = {"count": options.seeds or 5, "first": options.first_seed or 0}
    return replace(study, seeds=seeds, baseline=baseline or None)


def _pairs(flag: str, words: Sequence[str] | None) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in words or ()]
    for name, sign, text in pairs:
        if not (name and sign and text):
            raise InputError(f"{flag} {name}{sign}{text} is not understood; write FIELD=VALUE.")
    return [(name, text) for name, _, text in pairs]


def _values(text: str) -> list[Any]:
    return [_value(part) for part in text.split(",")]


def _value(text: str) -> Any:
    """A number or truth value as TOML has it, else the text itself."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _own_folder(options: argparse.Namespace) -> Path | None:
    return options.study if options.study is not None and options.study.is_dir() else None


def _executor(options: argparse.Namespace, folder: Path) -> Executor:
    common = {"attempts": options.attempts}
    if options.executor == "local":
        return build(
            "local", workers=options.workers or default_workers(), logs=folder / "logs", **common
        )
    if options.executor == "ray":
        return build("ray", workers=options.workers, address=options.ray_address, **common)
    given = {name: _value(text) for name, text in _pairs("--slurm", options.slurm)}
    return build("slurm", workers=options.workers, folder=folder / "slurm", **given, **common)
