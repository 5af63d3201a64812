"""Study: nothing lost, nothing doubled, whoever is killed; cells share seeds and budget, and failures are told."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import graphdyn as gd
from graphdyn.cli import main
from graphdyn.config import Config
from graphdyn.errors import GraphdynError, InputError, Interrupted, RecordError
from graphdyn.executors.executor import Book, tell
from graphdyn.executors.local import LocalExecutor
from graphdyn.grid import TUNING_SEED, Study
from graphdyn.journal import read_table
from graphdyn.keys import Key
from graphdyn.runner import Job, run
from graphdyn.study import run_study
from graphdyn.study_cli import TINY

BASE = {"dataset": "csbm", "hidden": 8}
NEIGHBOR = {"sampler": "neighbor", "fanouts": "4,3", "batch_size": 30}
STUDY = Study(
    name="small",
    seeds=2,
    budget={"steps": 12, "evaluations": 3},
    base=BASE,
    methods=[{"name": "full"}, {"name": "neighbor", **NEIGHBOR}],
    baseline={"method": "full"},
)


class Here:
    """An executor without processes; it can be told to stop after so many tasks."""

    workers = 1

    def __init__(self, stop_after=None):
        self.stop_after, self.tasks = stop_after, []

    def run(self, work, tasks, stopped):
        book = Book(len(tasks), 1)
        while (index := book.take()) is not None and not stopped():
            if len(self.tasks) == self.stop_after:
                os.kill(os.getpid(), signal.SIGINT)
                return
            self.tasks.append(tasks[index])
            try:
                yield book.done(index, work(tasks[index]))
            except GraphdynError as error:
                yield book.failed(index, type(error).__name__, tell(error))


def go(study, folder, **options):
    options.setdefault("executor", Here())
    return run_study(study, folder, **options)


def rows(folder):
    """The rows of every run, without the clock, which no two runs share."""
    return {
        str(path.parent.relative_to(folder)): read_table(path.parent)
        .drop_columns(["seconds"])
        .to_pylist()
        for path in sorted(folder.glob("cells/*/seed-*/summary.json"))
    }


def document(folder):
    return json.loads((folder / "study.json").read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "study"
    go(STUDY, folder)
    return folder


# ------------------------------------------------------------------------------------ what a run is


def test_every_run_is_the_run_of_its_configuration_alone(straight, tmp_path):
    assert list(rows(straight)) == [
        f"cells/csbm__gcn__{m}/seed-{n}" for m in ("full", "neighbor") for n in (0, 1)
    ]
    alone = Config(
        **BASE, **NEIGHBOR, max_steps=12, evaluations=3, first_seed=1, threads=1, out=tmp_path
    )
    run(alone)
    table = read_table(tmp_path).drop_columns(["seconds"]).to_pylist()
    assert rows(straight)["cells/csbm__gcn__neighbor/seed-1"] == table


def test_study_json_says_everything(straight):
    found = document(straight)
    assert found["name"] == "small"
    assert found["baseline"] == "csbm/gcn/full"
    assert found["target"] == {"metric": "valid", "value": None}
    assert found["budget"] == {"steps": 12}
    assert found["axes"] == {"dataset": ["csbm"], "model": ["gcn"], "method": ["full", "neighbor"]}
    assert found["seeds"] == [0, 1]
    assert [(c["name"], c["slug"]) for c in found["cells"]] == [
        ("csbm/gcn/full", "csbm__gcn__full"), ("csbm/gcn/neighbor", "csbm__gcn__neighbor"),
    ]  # fmt: skip
    for cell in found["cells"]:
        config = json.loads(
            (straight / "cells" / cell["slug"] / "seed-1" / "config.json").read_text()
        )
        own = Config.from_dict(cell["config"]).canonical()
        differing = {name for name in own if own[name] != config[name]}
        assert differing == {"first_seed", "out", "data_root"}
        assert config["data_root"]  # workers elsewhere do not see this environment
        default = Config().canonical()
        assert not [n for n, v in cell["config"].items() if v == default[n]]
    assert found["tuning"] is None
    assert Study.from_dict(found["spec"]).expand() == STUDY.expand()
    assert found["machine"]["cores"] == os.cpu_count()
    assert "torch" in found["versions"]


# ------------------------------------------------------------------------- what is the same in cells


def test_cells_share_split_weights_and_order_of_seeds():
    """Also across kinds of samplers: the order of seed nodes where they draw their targets alike."""
    split, order = {"split": "random-20x500x1000"}, []
    for method in (
        {"sampler": "full"},
        NEIGHBOR,
        {**NEIGHBOR, "sampler": "labor"},
        {"preset": "gas"},
    ):
        job = Job(Config(**BASE, **split, **method, first_seed=5), torch.device("cpu"))
        seed = job.seed(0)
        weights = [p.clone() for p in seed.model.parameters()]
        parts = seed.graph.split
        keys = list(seed.plans.keys(Key(5), range(1)))
        order.append([seed.plans.plan(key).seeds.tolist() for key in keys])
        if method == {"sampler": "full"}:
            first, nodes = weights, parts
        assert all(torch.equal(a, b) for a, b in zip(first, weights, strict=True))
        assert all(
            torch.equal(getattr(nodes, n), getattr(parts, n)) for n in ("train", "valid", "test")
        )
    assert order[1] == order[2]
    assert sorted(itertools.chain(*order[1])) == sorted(order[0][0])
    other = Job(Config(**BASE, **split, first_seed=6), torch.device("cpu")).seed(0)
    assert not torch.equal(other.graph.split.train, nodes.train)
    assert not all(torch.equal(a, b) for a, b in zip(first, other.model.parameters()))


def test_budgets_are_matched(straight, tmp_path):
    steps = {
        r["step"] for path, table in rows(straight).items() for r in table if r["group"] == "valid"
    }
    assert steps == {4, 8, 12}
    budget = 60_000
    go(Study(**{**vars(STUDY), "budget": {"edges": budget, "evaluations": 4}}), tmp_path / "s")
    for table in rows(tmp_path / "s").values():
        edges = [r["edges"] for r in table if r["group"] == "step"]
        last = edges[-1] - (edges[-2] if edges[1:] else 0)
        assert budget <= edges[-1] < budget + last
        assert max(r["edges"] for r in table if r["group"] == "valid") == edges[-1]
    assert len({len(table) for table in rows(tmp_path / "s").values()}) > 1


def test_the_ledger_has_every_row(straight):
    for path in straight.glob("cells/*/*/summary.json"):
        summary = json.loads(path.read_text())
        assert set(summary["seconds"]) == {
            "precompute", "sample", "gather", "transfer", "wait", "compute", "memory", "instruments",
            "evaluate", "total",
        }  # fmt: skip
        assert summary["seconds"]["transfer"] == 0
        assert summary["bytes"][0] > 0


# ---------------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stopped_and_started_again_it_does_what_is_left(straight, tmp_path, after):
    first, second = Here(stop_after=after), Here()
    with pytest.raises(Interrupted, match=f"stopped with {after} of 4 runs done"):
        go(STUDY, tmp_path / "s", executor=first)
    assert go(STUDY, tmp_path / "s", executor=second).pending == []
    assert len(first.tasks) == after
    assert len(second.tasks) == 4 - after
    assert rows(tmp_path / "s") == rows(straight)
    third = Here()
    go(STUDY, tmp_path / "s", executor=third)
    assert third.tasks == []


SPEC = """
name = "killed"
seeds = 1
baseline = {method = "full"}
[budget]
steps = 30
evaluations = 6
[base]
dataset = "csbm"
hidden = 8
checkpoint_seconds = 0
[[methods]]
name = "full"
[[methods]]
name = "neighbor"
sampler = "neighbor"
fanouts = "4,3"
batch_size = 30
"""


ALONE = """
import sys
from graphdyn.executors.local import LocalExecutor
from graphdyn.grid import Study
from graphdyn.study import run_study
run_study(Study.from_toml(sys.argv[1]), sys.argv[2], executor=LocalExecutor(1))
"""


def started(folder, runs):
    """A study in a process of its own, once a run after so many has written rows; and the process that writes them."""
    log = (folder.parent / "log").open("a")
    command = [sys.executable, "-c", ALONE, str(folder.parent / "killed.toml"), str(folder)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    log.close()
    deadline = time.monotonic() + 600  # a safety net
    while time.monotonic() < deadline:
        done = len(list(folder.glob("cells/*/*/summary.json")))
        busy = [p.parents[1] for p in folder.glob("cells/*/*/metrics/*3.arrow")]
        busy = [p for p in busy if not (p / "summary.json").exists()]
        if done >= runs and busy:
            return process, int((busy[0] / ".lock").read_text().split()[1])
        assert process.poll() is None, (folder.parent / "log").read_text()
        time.sleep(0.01)
    process.kill()
    raise AssertionError("the study did not get under way")


@pytest.mark.slow
def test_killed_with_nine_parent_then_worker_no_run_is_lost_or_doubled(tmp_path):
    (tmp_path / "killed.toml").write_text(SPEC)
    folder = tmp_path / "study"
    parent, _ = started(folder, runs=0)
    parent.kill()
    parent.wait()
    parent, worker = started(folder, runs=1)
    os.kill(worker, signal.SIGKILL)
    assert parent.wait(timeout=600) == 0, (tmp_path / "log").read_text()

    go(Study.from_toml(tmp_path / "killed.toml"), tmp_path / "straight")
    assert rows(folder) == rows(tmp_path / "straight")
    assert len(rows(folder)) == 2
    assert not list(folder.glob("cells/*/*.failed.json"))


# --------------------------------------------------------------------------------------- failures


EXPLODES = {"name": "explodes", "lr": 1e30, "optimizer": "sgd"}


def test_a_failed_run_is_recorded_and_does_not_stop_the_others(tmp_path):
    folder = tmp_path / "s"
    methods = [{"name": "full"}, EXPLODES, {"name": "neighbor", **NEIGHBOR}]
    study = Study(**{**vars(STUDY), "methods": methods})
    plan = go(study, folder)
    assert [unit.cell for unit in plan.failed] == ["csbm/gcn/explodes"] * 2
    assert len(plan.done) == 4
    entry = json.loads((folder / "cells/csbm__gcn__explodes/seed-1.failed.json").read_text())
    assert entry["error"] == "GraphdynError"
    assert entry["attempts"] == 1
    assert entry["reason"].startswith("the training loss became")

    again = Here()
    assert len(go(study, folder, executor=again).failed) == 2
    assert again.tasks == []
    assert len(go(study, folder, executor=again, retry_failed=True).failed) == 2
    assert [unit.seed for unit in again.tasks] == [0, 1]


def test_a_run_that_succeeds_at_last_is_failed_no_more(tmp_path, monkeypatch):
    from graphdyn.work import Trainer

    folder, train = tmp_path / "s", Trainer.train

    def refuse(self, config):
        if config.out is not None and config.out.is_relative_to(folder):
            raise GraphdynError("not today.")
        return train(self, config)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", refuse)
        assert len(go(STUDY, folder).failed) == 4
    plan = go(STUDY, folder, retry_failed=True)
    assert (len(plan.done), plan.failed) == (4, [])
    assert not list(folder.glob("cells/*/*.failed.json"))


# --------------------------------------------------------------------------- what may be changed


def test_cells_and_seeds_can_be_added(straight, tmp_path):
    folder, here = tmp_path / "s", Here()
    go(Study(**{**vars(STUDY), "methods": STUDY.methods[:1], "seeds": 1}), folder)
    go(STUDY, folder, executor=here)
    assert len(here.tasks) == 3
    assert rows(folder) == rows(straight)
    assert len(document(folder)["cells"]) == 2


CHANGES = [
    ({"budget": {"steps": 13, "evaluations": 3}}, "csbm/gcn/full: max_steps: 12 -> 13"),
    ({"methods": STUDY.methods[:1]}, "cell csbm/gcn/neighbor gone"),
    ({"seeds": 1}, r"seed\(s\) 1 gone"),
    ({"base": {**BASE, "lr": 0.1}}, "lr: 0.01 -> 0.1"),
    ({"tune": {"trials": 2}}, "tuning: None -> "),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[m for _, m in CHANGES])
def test_other_changes_are_refused_with_the_difference(straight, change, message):
    before = document(straight)
    with pytest.raises(RecordError, match=message):
        go(Study(**{**vars(STUDY), **change}), straight)
    assert document(straight) == before


def test_two_processes_cannot_hold_one_study(straight):
    from graphdyn.files import lock

    held = lock(straight)
    with pytest.raises(RecordError, match="another process is writing"):
        go(STUDY, straight)
    held.close()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RecordError, match="holds no study"):
        go(STUDY, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


# ------------------------------------------------------------------------------------- before it


def test_a_dry_run_says_everything_and_writes_nothing(tmp_path, capsys):
    go(STUDY, tmp_path / "s", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().out
    assert "small: 2 cells x 2 seeds = 4 runs" in said
    assert "each run: 12 steps, 3 evaluations; seeds 0..1, the same in every cell" in said
    assert "csbm/gcn/neighbor" in said


def test_the_plan_tries_what_it_knows_nothing_of_and_says_what_will_fail(tmp_path, capsys):
    methods = [{"name": "full"}, {"name": "large", **NEIGHBOR, "batch_size": 999}]
    study = Study(**{**vars(STUDY), "methods": methods})
    go(study, tmp_path / "s", dry_run=True, executor=LocalExecutor(2))
    said = capsys.readouterr().out
    assert "csbm/gcn/large    2 runs  will fail: batch_size is 999, but" in said
    assert "s each" in said
    assert "expected time with 2 worker(s): about" in said
    assert "(2 short calibration(s))" in said
    assert list(tmp_path.iterdir()) == []


def test_runs_of_one_process_share_the_graph_and_nothing_that_was_made_of_it():
    from graphdyn.runner import Graphs

    graphs, cpu = Graphs(), torch.device("cpu")
    first = graphs.get(Config(**BASE), cpu)
    matrix = first.adjacency(gd.Propagation())
    second = graphs.get(Config(**BASE, lr=0.5), cpu)
    assert second.x is first.x
    assert second.adjacency(gd.Propagation()) is not matrix
    other = Config(**BASE, split="random-20x500x1000-seed1")
    assert graphs.get(other, cpu).x is not first.x


def test_the_forecast_extrapolates_counts(tmp_path):
    """Steps that a budget of edges allows, from those of a few: within a tenth of what they were."""
    from graphdyn import forecast

    config = Config(**BASE, **NEIGHBOR, threads=1, workers=0, max_edges=60_000, out=tmp_path / "a")
    summary = run(config)
    table = [r for r in read_table(tmp_path / "a").to_pylist() if r["group"] == "step"]
    each = forecast._slope(table[:8], "edges")
    assert 60_000 / each == pytest.approx(summary["steps"][0], rel=0.1)
    seconds = forecast._extrapolate(config, summary, table)
    ledger = summary["seconds"]
    assert ledger["precompute"] < seconds < 100


BAD = [
    ({"methods": [{"name": "x", "sampler": "neighbour"}]}, "unknown sampler 'neighbour'"),
    ({"methods": [{"name": "x", "sampler_options": {"parts": 3}}]}, "unknown option"),
    ({"base": {**BASE, "dataset": "coar"}}, "unknown data set 'coar'"),
    ({"base": {**BASE, "norm": "bach"}}, "unknown norm 'bach'"),
    ({"base": {**BASE, "split": "public"}}, "csbm has no split 'public'"),
    ({"base": {**BASE, "instruments": "light+grad"}}, "unknown instrument 'grad'"),
    ({"base": {**BASE, "optimizer": "adm"}}, "unknown optimiser 'adm'"),
    ({"base": {**BASE, "regularizer": "mixgraph"}}, "unknown regularizer 'mixgraph'"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m for _, m in BAD])
def test_what_no_run_could_do_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(InputError, match=f"cell csbm.*{message}|cell coar.*{message}"):
        go(Study(**{**vars(STUDY), **change}), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------- tuning


TUNED = Study(
    **{
        **vars(STUDY),
        "budget": {"steps": 4, "evaluations": 1},
        "tune": {"trials": 4, "lr": [1e-4, 0.5], "batch_size": [20, 40]},
    }
)


def trials(folder):
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("tuning/*.json"))}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    pytest.importorskip("optuna", reason="pip install 'graphdyn[study]'")
    folder = tmp_path_factory.mktemp("tuned") / "study"
    go(TUNED, folder)
    return folder


def test_every_cell_gets_as_many_trials_on_seeds_of_their_own(tuned):
    found = trials(tuned)
    assert list(found) == ["csbm__gcn__full", "csbm__gcn__neighbor"]
    assert {len(entry["trials"]) for entry in found.values()} == {4}
    for path in tuned.glob("tuning/*/trial-*/summary.json"):
        summary = json.loads(path.read_text())
        assert summary["seeds"] == [TUNING_SEED]
        assert summary["steps"] == [4]
    assert TUNING_SEED not in document(tuned)["seeds"]
    assert len(list(tuned.glob("tuning/*/trial-*/summary.json"))) == 8


def test_runs_use_the_first_of_the_best_trials(tuned):
    for slug, entry in trials(tuned).items():
        values = []
        for trial in entry["trials"]:
            folder = tuned / "tuning" / slug / f"trial-{trial['number']}"
            summary = json.loads((folder / "summary.json").read_text())
            config = json.loads((folder / "config.json").read_text())
            assert trial["value"] == summary["validation"]["mean"]
            assert 1e-4 <= trial["params"]["lr"] == config["lr"] <= 0.5
            values.append(trial["value"])
        best = entry["trials"][values.index(max(values))]["params"]
        assert entry["best"] == best
        for path in tuned.glob(f"cells/{slug}/*/config.json"):
            config = json.loads(path.read_text())
            assert {name: config[name] for name in best} == best
    full, neighbor = trials(tuned).values()
    assert set(full["best"]) == {"lr"}
    assert {t["params"]["batch_size"] for t in neighbor["trials"]} <= {20, 40}


@pytest.mark.parametrize("after", [1, 3])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(tuned, tmp_path, monkeypatch, after):
    from graphdyn import tuning

    original, calls = tuning._try, []

    def stopping(*args):
        if len(calls) == after:
            raise Interrupted("stopped.")
        calls.append(1)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_try", stopping)
        go(TUNED, tmp_path / "s", executor=Forgiving())
    assert max(len(t["trials"]) for t in trials(tmp_path / "s").values()) == after
    for path in (tmp_path / "s").glob("cells/*/*.failed.json"):
        path.unlink()
    go(TUNED, tmp_path / "s")
    assert trials(tmp_path / "s") == trials(tuned)
    assert rows(tmp_path / "s") == rows(tuned)


class Forgiving(Here):
    """Takes an interruption for a failure."""


def test_trials_that_fail_count_as_trials(tmp_path):
    pytest.importorskip("optuna", reason="pip install 'graphdyn[study]'")
    methods = [{"name": "sgd", "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}]
    tune = {"trials": 5, "lr": [1e-2, 1e30]}
    go(Study(**{**vars(TUNED), "methods": methods, "tune": tune, "baseline": None}), tmp_path / "s")
    (entry,) = trials(tmp_path / "s").values()
    failed = [t for t in entry["trials"] if t["value"] is None]
    assert len(entry["trials"]) == 5
    assert failed
    assert all(t["reason"].startswith("the training loss became") for t in failed)


# ------------------------------------------------------------------------------ the command line


def test_the_command_runs_a_grid_of_flags(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("graphdyn.study_cli._executor", lambda options, folder: Here())
    flags = ["--grid", "dataset=csbm", "sampler=full,neighbor", "lr=0.01,0.1", "--base", "hidden=8",
             "--steps", "5", "--evaluations", "2", "--seeds", "2", "--first-seed", "3",
             "--baseline", "sampler=full", "lr=0.01"]  # fmt: skip
    assert main(["study", *flags, "--out", str(tmp_path / "s")]) == 0
    found = document(tmp_path / "s")
    assert [c["name"] for c in found["cells"]] == [
        f"csbm/gcn/{s}/lr={lr}" for s in ("full", "neighbor") for lr in (0.01, 0.1)
    ]  # fmt: skip
    assert found["seeds"] == [3, 4]
    assert found["baseline"] == "csbm/gcn/full/lr=0.01"
    assert found["command"].startswith("graphdyn study --grid dataset=csbm sampler=full,neighbor")
    said = capsys.readouterr().out
    assert "report:" in said
    assert "neighbor" in said
    for name in ("table.md", "table.csv", "report.html"):
        assert (tmp_path / "s" / name).exists()

    assert main(["study", str(tmp_path / "s")]) == 0  # the folder of a study is one, too
    assert document(tmp_path / "s")["cells"] == found["cells"]


def test_failures_are_listed_and_end_in_code_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("graphdyn.study_cli._executor", lambda options, folder: Here())
    (tmp_path / "s.toml").write_text(
        'seeds = 1\n[budget]\nsteps = 5\n[base]\ndataset = "csbm"\nhidden = 8\noptimizer = "sgd"\n'
        "[grid]\nlr = [0.1, 1e30]\n"
    )
    assert main(["study", str(tmp_path / "s.toml"), "--out", str(tmp_path / "s")]) == 1
    captured = capsys.readouterr()
    assert "failed: csbm/gcn/lr=1e+30/full, seed 0: see" in captured.out
    assert "1 of 2 runs failed; --retry-failed tries them again" in captured.err


WRONG = [
    ([], "give a study file, or --tiny, or flags"),
    (["--tiny", "--seeds", "3"], "exactly one of them"),
    (["absent.toml"], "cannot read absent.toml"),
    (["--grid", "lr"], "--grid lr is not understood; write FIELD=VALUE"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG)
def test_wrong_commands_are_one_sentence(flags, message, capsys):
    assert main(["study", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_tiny_study_covers_the_kinds_of_methods():
    methods = {Path(c.name).name: c.config for c in TINY.expand()}
    assert set(methods) == {"full", "neighbor", "gas"}
    assert {c.dataset for c in methods.values()} == {"csbm"}


def test_a_worker_warms_up_once_a_method_and_a_folder_is_not_touched(tmp_path, monkeypatch):
    from graphdyn import work

    seen, original = [], work.run

    def watched(config, graphs):
        seen.append((config.sampler, config.max_steps, config.out.is_relative_to(tmp_path)))
        return original(config, graphs)

    monkeypatch.setattr(work, "run", watched)
    trainer = work.Trainer()
    for sampler in ("full", "neighbor"):
        for seed in (0, 1):
            trainer.train(
                Config(
                    **BASE,
                    sampler=sampler,
                    max_steps=3,
                    first_seed=seed,
                    out=tmp_path / f"{sampler}{seed}",
                )
            )
    assert seen == [
        (s, *rest) for s in ("full", "neighbor") for rest in ((2, False), (3, True), (3, True))
    ]
