"""The command line: train, report, reproduce, data, doctor. Loads nothing heavy before it is needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from graphdyn.config import Config
from graphdyn.errors import GraphdynError, InputError, Interrupted, unknown

USAGE = """\
usage: graphdyn COMMAND [OPTIONS]

See how a graph neural network learns.

  train      train a model on a data set over several seeds, and record it
  study      many methods under matched budgets and paired seeds: one report
  report     table and curves of one or more run folders, or the page of a study
  watch      a run or a study in this terminal while it goes on
  reproduce  run published figures from their recipes: measured, published, verdict
  data       list | info NAME | get NAME | verify NAME
  doctor     what this installation can do: versions, threads, devices, data

graphdyn COMMAND --help lists the options of a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after the program's name; by default those of the process.

    Returns:
        Exit code: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if args else 2
    try:
        if args[0] == "--version":
            _version()
        elif args[0] in COMMANDS:
            COMMANDS[args[0]](args[1:])
        else:
            raise unknown("command", args[0], COMMANDS)
    except Interrupted as error:
        return _fail(None if error.told else error, 130)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from the last checkpoint.", 130)
    except GraphdynError as error:
        code = 2 if isinstance(error, InputError) else 1
        return _fail(None if error.told else error, code)
    return 0


def _fail(reason: object, code: int) -> int:
    if reason is not None:
        print(f"graphdyn: {reason}", file=sys.stderr)
    return code


def _version() -> None:
    from importlib.metadata import version

    print(f"graphdyn {version('graphdyn')}")


def _train(args: list[str]) -> None:
    config = parse_config(args)
    from graphdyn.parallel import World
    from graphdyn.report.tables import print_runs
    from graphdyn.runner import run

    run(config)
    if World.here().leads:
        print_runs([config.folder])


def parse_config(args: Sequence[str]) -> Config:
    """Flags over the TOML file named by ``--config`` over the defaults.

    Args:
        args: Words after ``graphdyn train``.

    Raises:
        InputError: If the file or a value does not fit.
        SystemExit: With code 2 if a flag does not parse, 0 after ``--help``.
    """
    import tyro

    # abbreviations stay off: `--seed 3` must not quietly mean `--seeds 3`
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(args)
    base = Config.from_toml(known.config) if known.config else Config()
    return tyro.cli(
        Config,
        prog="graphdyn train",
        args=rest,
        default=base,
        description="Train a model over several seeds and record it; --config FILE.toml gives defaults.",
    )


def _study(args: list[str]) -> None:
    from graphdyn.study_cli import main as study

    study(args)


def _report(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "graphdyn report",
        description="Table and curves of one or more folders of runs or recorders; the page of a study.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, a recorder or a study"
    )
    parser.add_argument("--png", type=Path, help="where the curves go (default: RUN/curves.png)")
    options = parser.parse_args(args)
    from graphdyn.report.figures import draw_curves
    from graphdyn.report.series import is_record
    from graphdyn.report.study import is_study, print_report
    from graphdyn.report.tables import print_runs

    for folder in filter(is_study, options.runs):
        print_report(folder)
    rest = [folder for folder in options.runs if not is_study(folder)]
    # A recorder in somebody else's loop leaves a folder without a run: what was measured, and no more.
    runs = [folder for folder in rest if not is_record(folder)]
    if runs:
        print_runs(runs)
        print(f"curves: {draw_curves(runs, options.png)}")
    for folder in rest:
        _report_dynamics(folder)


def _watch(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "graphdyn watch",
        description="A run or a study in this terminal while another process writes it; Ctrl-C leaves.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a run or of a study")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds between two looks (default: 1)"
    )
    parser.add_argument(
        "--once", action="store_true", help="print what there is now, as where there is no terminal"
    )
    options = parser.parse_args(args)
    with suppress(KeyboardInterrupt):
        from graphdyn.report.live import watch

        watch(options.folder, options.interval, options.once)


def _report_dynamics(folder: Path) -> None:
    """What instruments have measured, if there were any."""
    from graphdyn.report.dynamics import draw_dynamics, has_dynamics
    from graphdyn.report.predictions import print_verdicts
    from graphdyn.report.series import is_record, read_measured
    from graphdyn.report.tables import labels, read_run

    measured = read_measured(folder)
    if has_dynamics(measured):
        print_verdicts(measured)
        title = folder.name if is_record(folder) else labels([read_run(folder)["config"]])[0]
        print(f"dynamics: {draw_dynamics(measured, title, folder / 'dynamics.png')}")


def _reproduce(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "graphdyn reproduce",
        description="Run rows of the table of published figures from their recipes, and judge them.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="row, see --list")
    parser.add_argument(
        "--list", action="store_true", help="every row, and whether its data is here"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduce"), help="run folders, results.json"
    )
    parser.add_argument(
        "--seeds", type=int, help="fewer or more than the recipe's; the verdict says so"
    )
    parser.add_argument("--tiny", action="store_true", help="2 seeds, 3 epochs: does it run?")
    parser.add_argument("--data-root", type=Path, help="folder of raw files")
    options = parser.parse_args(args)
    from graphdyn.report.reproduced import print_known, print_results, write_markdown
    from graphdyn.reproduce import Terms, chosen, reproduce, rows

    if options.list:
        print_known(rows(), options.data_root)
    elif not options.names:
        raise InputError(
            "graphdyn reproduce needs the name of a row; `graphdyn reproduce --list` has all."
        )
    else:
        wanted = len(chosen(options.names))
        terms = Terms(options.out, options.seeds, options.tiny, options.data_root)
        results = reproduce(options.names, terms)
        if results:
            print_results(results)
            print(f"table: {write_markdown(options.out)}")
        if len(results) < wanted:
            raise GraphdynError(
                f"{wanted - len(results)} of {wanted} rows have no result, see above."
            )


def _data(args: list[str]) -> None:
    parser = argparse.ArgumentParser("graphdyn data", description="Data sets and their raw files.")
    parser.add_argument("action", choices=("list", "info", "get", "verify"))
    parser.add_argument("name", nargs="?", help="data set, for info, get and verify")
    parser.add_argument("--data-root", type=Path, help="folder of raw files")
    options = parser.parse_args(args)
    from graphdyn.report import catalogue

    if options.action == "list":
        catalogue.print_list(options.data_root)
    elif options.name is None:
        raise InputError(f"graphdyn data {options.action} needs the name of a data set.")
    else:
        getattr(catalogue, f"print_{options.action}")(options.name, options.data_root)


def _doctor(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "graphdyn doctor", description="What this installation can do."
    )
    parser.add_argument("--data-root", type=Path, help="folder of raw files")
    options = parser.parse_args(args)
    from graphdyn.report.doctor import print_doctor

    print_doctor(options.data_root)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "study": _study,
    "report": _report,
    "watch": _watch,
    "reproduce": _reproduce,
    "data": _data,
    "doctor": _doctor,
}
