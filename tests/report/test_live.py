"""Watching: what a folder says in the middle of a run is true, readable in 60 columns, and nothing is touched."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from report import folders
from rich.console import Console

from graphdyn.errors import InputError
from graphdyn.files import lock, locked
from graphdyn.journal import Clock, Journal, Metric
from graphdyn.report.live import watch
from graphdyn.report.live_frame import run_frame
from graphdyn.report.live_reader import RunReader
from graphdyn.report.live_run import share
from graphdyn.report.live_study import StudyReader
from graphdyn.report.live_study_frame import study_frame


def told(reader, frame=run_frame, width=100, height=None, **options):
    console = Console(record=True, width=width, file=io.StringIO(), **options)
    console.print(frame(reader.read(), console, height))
    return console.export_text()


def fingerprint(folder):
    """Names, times, inodes and contents of everything in a folder."""
    return {
        str(p.relative_to(folder)): (
            p.stat().st_mtime_ns,
            p.stat().st_ino,
            hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "",
        )
        for p in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def still(monkeypatch):
    """Call it, and it is half a second later for as long as the test lasts, however busy the machine."""

    def stop(after=0.5):
        now = time.time() + after
        monkeypatch.setattr(time, "time", lambda: now)

    return stop


@pytest.fixture
def running(tmp_path, still):
    """A run in its third seed, after four epochs of ten."""
    record = folders.opened(tmp_path / "run")
    at = folders.epochs(record, seed=2)
    done = [folders.result(0, 0.70), folders.result(1, 0.72)]
    folders.checkpoint(record, at, done)
    still()
    yield record
    record.close()


def test_a_run_in_the_middle(running):
    text = told(RunReader(running.folder))
    assert "cora · gcn · neighbor" in text
    assert "running" in text
    assert "as of the checkpoint 0." in text
    # Two seeds and four tenths of the third, of four. It took one second to prepare, nine so far, 13.5 more; the
    # fourth will take 20 as the others did.
    assert "60%, about 33 s left" in text
    assert "seed 3 of 4 · epoch 4 of 10 · step 20" in text
    assert "training loss, seed 2: 2 to 0.1" in text
    assert "validation accuracy: 30 to 65" in text
    assert "time 50 s" in text
    assert "instruments took 1.8% of training" in text  # 0.5 of 28: compute and waiting
    assert "120 steps, 120 k edges, 600 kB of features" in text
    assert "sample 3.0 s, gather 0.5 s" in text
    assert "step 20: rate_fit invalid: 4 losses were noted" in text


def test_test_is_told_of_the_selected_epoch_alone(running):
    lines = {line.split()[0]: line for line in told(RunReader(running.folder)).splitlines() if line}
    assert lines["latest"].split()[1:] == ["65.00", "accuracy", "at", "epoch", "4"]
    assert lines["best"].split()[1:] == ["70.00", "81.10", "at", "epoch", "3"]
    assert "71.00 ± 1.41" in lines["seeds"]
    assert "66.00 ± 1.41" in lines["seeds"]
    assert "2 done" in lines["seeds"]
    assert "76.1" not in told(RunReader(running.folder))  # test at the latest epoch
    assert "92.1" not in told(RunReader(running.folder))


def test_every_instrument_says_its_latest_with_error_theory_and_verdict(running):
    lines = [" ".join(line.split()) for line in told(RunReader(running.folder)).splitlines()]
    start = lines.index("instrument latest theory so far step") + 1
    # Those with predictions first; every prediction, else one quantity that speaks for the instrument. Of several
    # groups the one that is furthest from theory, else the last.
    assert lines[start : start + 6] == [
        "effective_lr.norm of convs.0 3 3 pass 20",
        "effective_lr.effective_lr of convs.0 0.0404 0.04 pass 20",
        "fdt.ratio of convs.1 (+1) 2 1 fail 1/2 20",
        "smoothness.rw of layer 2 (+1) 2 20",
        "noise_scale.noise_scale 44 ± 2.5 20",
        "update_ratio.ratio 0.004 20",
    ]
    assert lines[start + 6].startswith("time 50 s")


def test_rows_that_no_checkpoint_counts_are_not_shown(running):
    clock = Clock(2, 21, 4, 9.0, 21000)
    running.add(clock, Metric("loss", "step", 777.0))
    running.journal.write()
    assert "777" not in told(RunReader(running.folder))


def test_a_reader_sees_what_is_new_and_reads_the_rest_once(running, monkeypatch):
    reader = RunReader(running.folder)
    assert reader.read().loss[0].size == 20
    from graphdyn.report import live_reader, tail

    reads, part = [], tail._part
    monkeypatch.setattr(tail, "_part", lambda path: reads.append(path.name) or part(path))
    measured = []
    curves = live_reader._measured
    monkeypatch.setattr(live_reader, "_measured", lambda *a: measured.append(1) or curves(*a))
    reader.read()
    assert (reads, measured) == ([], [])
    at = folders.epochs(running, seed=3)
    folders.checkpoint(running, at, [folders.result(i, 0.7) for i in range(3)])
    now = reader.read()
    assert (now.seed, now.loss[0].size, reads) == (3, 20, ["000001.arrow"] * 2)  # metrics, events


def test_parts_that_a_resumed_run_has_dropped_are_forgotten(running):
    reader = RunReader(running.folder)
    assert reader.read().loss[0].size == 20
    running.journal.keep(0)
    running.add(Clock(0, 1, 0, 0.0, 0), Metric("loss", "step", 5.0))
    folders.checkpoint(running)
    now = reader.read()
    assert (now.seed, now.loss[1].tolist()) == (0, [5.0])
    assert "events/000000.arrow" not in reader._tail.stamps()


@pytest.mark.parametrize(
    ("changes", "at", "per_epoch", "expected"),
    [
        ({"epochs": 10}, {"step": 25, "epoch": 2}, 10, 0.25),
        ({"epochs": 10}, {"step": 25, "epoch": 2}, None, 0.2),
        ({"max_steps": 50}, {"step": 25}, None, 0.5),
        ({"max_edges": 1000, "max_steps": 50}, {"step": 5, "edges": 900}, None, 0.9),
        ({"max_seconds": 4.0}, {"step": 5, "trained": 1.0}, None, 0.25),
        ({"max_bytes": 8}, {"step": 5, "bytes": 2}, None, 0.25),
        ({"max_steps": 50}, {"step": 51}, None, 1.0),
        ({}, {"step": 5}, None, 0.0),
    ],
)
def test_how_much_of_a_seed_is_done(changes, at, per_epoch, expected):
    at = {"epoch": 0, "edges": 0} | at
    assert share(changes, at, per_epoch) == pytest.approx(expected)


def test_budgets_are_axes(tmp_path, still):
    limits = {"max_edges": 100_000, "max_seconds": 90.0, "max_bytes": 10**6, "epochs": None}
    record = folders.opened(tmp_path / "run", **limits, seeds=1, patience=3)
    folders.checkpoint(record, folders.epochs(record))
    text = told(RunReader(record.folder))
    record.close()
    assert (
        "epoch 4 · step 20 · edges 20 k of 100 k · bytes 100 k of 1 M · 0.0 s of 1 min 30 s" in text
    )
    assert "20%, at most 36 s left" in text  # of 9 / 0.2; patience may end it before


def test_a_run_that_has_not_begun(tmp_path):
    (tmp_path / "run").mkdir()
    assert "waiting" in told(RunReader(tmp_path / "run"))
    record = folders.opened(tmp_path / "run")
    text = told(RunReader(record.folder))
    assert "cora · gcn · neighbor" in text
    assert "running" in text
    assert "the first checkpoint comes after 30 s" in text
    record.close()


def test_a_run_whose_process_is_gone(running):
    running.close()
    text = told(RunReader(running.folder))
    assert "stopped" in text
    assert "nobody writes here; the same command goes on from seed 2, step 20" in text
    assert " left" not in text.replace("memory left", "")


def test_a_run_that_is_done(running):
    running.finish(folders.summary())
    running.close()
    text = told(RunReader(running.folder))
    assert "finished 0." in text
    assert "100%" in text
    assert "72.00 ± 1.41" in text
    assert "mean ± std of 2" in text
    assert "training loss, seed 2" in text


def test_a_writer_on_another_machine_is_believed_for_a_while(running, still):
    folder = running.folder
    running.close()
    (folder / ".lock").write_text("elsewhere 17\n")
    assert locked(folder) is None
    reader = RunReader(folder)
    assert reader.read().status == "running"
    still(after=2 * 30 + 31)
    assert reader.read().status == "stopped"
    assert "its writer seems dead" in told(reader)


def test_a_process_that_is_there_and_writes_nothing_is_noticed(running, still):
    still(after=99.3)
    assert "not updated for 1 min 40 s, though its process is there" in told(
        RunReader(running.folder)
    )


def test_locked_never_takes_the_lock(tmp_path):
    assert locked(tmp_path) is False
    record = folders.opened(tmp_path / "run")
    before = fingerprint(record.folder)
    assert locked(record.folder) is True
    record.close()
    assert locked(record.folder) is False
    assert fingerprint(record.folder) == before
    with folders.opened(tmp_path / "run")._lock:
        pass


def test_half_written_files_are_named_and_the_rest_is_shown(running):
    folder = running.folder
    part = folder / "metrics" / "000000.arrow"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    text = told(RunReader(folder))
    assert "cannot read metrics/000000.arrow" in text
    assert "epoch 4 of 10" in text
    part.write_bytes(whole)
    reader = RunReader(folder)
    assert "cannot read" not in told(reader)
    for name in ("checkpoint.safetensors", "config.json"):
        data = (folder / name).read_bytes()
        for half in (b"", data[: len(data) // 3], b"[1, 2]"):
            (folder / name).write_bytes(half)
            assert f"cannot read {name}" in told(reader)
        (folder / name).write_bytes(data)
    assert "cannot read" not in told(reader)


@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize("height", [None, 24, 50])
def test_no_line_is_wider_than_the_terminal(running, width, height):
    for encoding in ("utf-8", "ascii"):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
        console = Console(record=True, width=width, height=height or 25, file=file)
        console.print(run_frame(RunReader(running.folder).read(), console, height))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert height is None or width < 60 or len(lines) <= height
        if width >= 60:
            braille = any("\u2801" <= c <= "\u28ff" for line in lines for c in line)
            assert braille == (encoding == "utf-8")
            assert any("fdt.ratio" in line and "fail 1/2" in line for line in lines)


def test_a_low_terminal_gets_the_instruments_that_fit(tmp_path):
    record = folders.opened(tmp_path / "run")
    at = folders.epochs(record)
    for i in range(30):
        record.add(at.clock, Metric(f"i{i:02}.x", "all", 1.0))
    folders.checkpoint(record, at)
    lines = told(RunReader(record.folder), width=80, height=30).splitlines()
    record.close()
    assert len(lines) <= 30
    start = next(i for i, line in enumerate(lines) if line.startswith("instrument "))
    end = next(i for i, line in enumerate(lines) if line.endswith(" more"))
    assert end - start > 4
    assert lines[end] == f"and {36 - (end - start - 1)} more"
    assert any("fdt.ratio" in line for line in lines)  # those with predictions come first


def test_a_recorder_without_a_run(tmp_path):
    journal = Journal(tmp_path / "mine")
    for step in range(1, 6):
        journal.add(Clock(0, step, 0, 0.0, 0), Metric("loss", "step", 1.0 / step))
        journal.add(Clock(0, step, 0, 0.0, 0), Metric("update_ratio.ratio", "all", 0.1))
    journal.write()
    (tmp_path / "mine" / ".lock").write_text("elsewhere 1")
    reader = RunReader(tmp_path / "mine")
    text = told(reader)
    assert "running" in text
    assert "training loss: 1 to 0.2" in text
    assert "update_ratio.ratio" in text
    journal.compact()
    assert reader.read().status == "finished"


# ------------------------------------------------------------------------------------------ studies


def plan(folder, cells=("cora/gcn/full", "cora/gcn/neighbor", "cora/gcn/labor"), seeds=3, **more):
    folder.mkdir(exist_ok=True)
    named = [{"name": name, "slug": name.replace("/", "__"), "config": {}} for name in cells]
    document = {"name": "mine", "baseline": cells[0], "seeds": [*range(seeds)], "cells": named}
    (folder / "study.json").write_text(json.dumps(document | more))
    return {
        name: folder / "cells" / entry["slug"] for name, entry in zip(cells, named, strict=True)
    }


@pytest.fixture
def study(tmp_path):
    """Two done, one running, one failed, one stopped, four that wait."""
    full, neighbor, labor = plan(tmp_path / "study").values()
    for seed, valid in enumerate((0.71, 0.73)):
        record = folders.opened(full / f"seed-{seed}", seeds=1)
        record.finish(folders.summary((seed,), (valid,), total=40.0 + seed))
        record.close()
    stopped = folders.opened(full / "seed-2", seeds=1)
    stopped.close()
    goes = folders.opened(neighbor / "seed-0", seeds=1)
    folders.checkpoint(goes, folders.epochs(goes))
    labor.mkdir()
    reason = {"reason": "no memory left.", "error": "MemoryError", "attempts": 2}
    (labor / "seed-0.failed.json").write_text(json.dumps(reason))
    yield tmp_path / "study"
    goes.close()


def test_a_study_in_the_middle(study):
    text = told(StudyReader(study), study_frame)
    assert "study mine" in text
    assert "running" in text
    assert "2 of 9 runs done · 1 running · 1 failed · 1 stopped · 4 waiting" in text
    rows = [" ".join(line.split()) for line in text.splitlines() if line.startswith("cora/gcn")]
    assert rows[0] == "cora/gcn/full * 2 · · 1 72.00 ± 1.41 40.5"
    assert rows[1] == "cora/gcn/neighbor · 1 · 2 - -"
    assert rows[2] == "cora/gcn/labor · · 1 2 - -"
    assert "cora/gcn/neighbor seed 0: epoch 4, step 20, loss 0.1, valid 65.00 (best 70.00)" in text
    assert "failed: cora/gcn/labor seed 0 (2 attempts): no memory left." in text
    # A run of full takes 40.5 s, one of neighbor 1 + 9 / 0.4 at its pace, one of labor the mean of both; to do
    # are one, 2.6 and two, one at a time.
    assert "38%, about 2 min 46 s left" in text


def test_a_study_that_is_done_and_one_that_waits(study):
    reader = StudyReader(study)
    assert not reader.read().finished
    plan(study, cells=("cora/gcn/full",), seeds=2)
    now = reader.read()
    assert now.finished
    assert now.status == "finished"
    assert "100%" in told(reader, study_frame)
    plan(study, command="graphdyn study mine.toml", seeds=4)
    (study / "cells" / "cora__gcn__neighbor" / "seed-0" / ".lock").unlink()
    now = reader.read()
    assert now.status == "stopped"
    with lock(study):  # somebody hands out runs, and none has begun
        assert reader.read().status == "running"
    text = told(reader, study_frame)
    assert "nobody works on it; `graphdyn study mine.toml` goes on" in text
    assert " left" not in text.replace("memory left", "")
    plan(study.parent / "new", tuning={"trials": 4})
    text = told(StudyReader(study.parent / "new"), study_frame)
    assert "waiting" in text
    assert "0 of 9 runs done · 9 waiting · 0 of 12 trials" in text
    search = {"trials": [{"number": 0}, {"number": 1}]}
    (study.parent / "new" / "tuning").mkdir()
    (study.parent / "new" / "tuning" / "cora__gcn__full.json").write_text(json.dumps(search))
    assert "2 of 12 trials" in told(StudyReader(study.parent / "new"), study_frame)


def test_a_failed_run_that_is_tried_again_goes_on(study):
    again = folders.opened(study / "cells" / "cora__gcn__labor" / "seed-0", seeds=1)
    reader = StudyReader(study)
    assert "2 running" in told(reader, study_frame)
    # 40.5 of full, 2.6 of neighbor at 23.5, and three of labor at 32 seconds each, two at a time.
    assert reader.read().left == pytest.approx((40.5 + 2.6 * 23.5 + 3 * 32) / 2)
    again.close()


def test_a_run_that_ends_while_it_is_looked_at_is_not_stopped(running, study, monkeypatch):
    from graphdyn.report import live_reader, live_study

    def ends(folder):
        if (folder / "config.json").exists():
            (folder / "summary.json").write_text(json.dumps(folders.summary((0,), (0.7,))))
        return False

    monkeypatch.setattr(live_reader, "locked", ends)
    monkeypatch.setattr(live_study, "locked", ends)
    assert RunReader(running.folder).read().status == "finished"
    unit = StudyReader(study).read().cells[1].units[0]
    assert (unit.cell, unit.status) == ("cora/gcn/neighbor", "done")


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_large_study_fits_a_small_terminal(study, width):
    names = [f"ogbn-arxiv-tape/gcn/{i}/a-sampler-with-a-long-name" for i in range(50)]
    cells = ["cora/gcn/full", "cora/gcn/neighbor", "cora/gcn/labor", *names]
    plan(study, cells=tuple(cells))
    lines = told(StudyReader(study), study_frame, width=width, height=20).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= width
    assert any("gcn/neighbor" in line or "neighbor" in line for line in lines)  # it runs
    assert any("more cells" in line for line in lines)


# ------------------------------------------------------------------------- the command as a process

COMMAND = [sys.executable, "-m", "graphdyn"]
TRAIN = [
    "train", "--dataset", "csbm", "--hidden", "8", "--epochs", "100000", "--seeds", "2", "--threads", "1",
    "--checkpoint-seconds", "0.1", "--instruments", "update_ratio", "--measure-every", "5",
]  # fmt: skip


def test_a_run_that_trains_is_watched_killed_and_untouched(tmp_path, capsys):
    folder = tmp_path / "run"
    process = subprocess.Popen([*COMMAND, *TRAIN, "--out", str(folder)], stderr=subprocess.PIPE)
    reader, seen = RunReader(folder), []
    try:
        deadline = time.monotonic() + 120
        while len(set(seen)) < 4 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            at = reader.read().at
            seen += [] if at is None else [at["step"]]
            time.sleep(0.05)
        now = reader.read()
        assert now.status == "running"
        assert now.readings
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert seen == sorted(seen)
    before = fingerprint(folder)
    watch(folder)  # no terminal: one frame
    text = " ".join(capsys.readouterr().out.split())
    assert "stopped" in text
    assert "nobody writes here; the same command goes on from seed 0, step" in text
    assert "update_ratio" in text
    assert fingerprint(folder) == before


def pty(words, size=(60, 24), until=None, keys=b"\x03", **environment):
    """What a command writes to a terminal, and its exit code; keys are pressed once it shows something."""
    import fcntl
    import pty as module
    import select
    import struct
    import termios

    pid, terminal = module.fork()
    if not pid:
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        own = {**kept, "TERM": "xterm-256color", **environment}
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs inherit that it is ignored
        os.execve(sys.executable, [*COMMAND, *words], own)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    out, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not chunk:
                break
            out += chunk
        if until is not None and until in out:
            os.write(terminal, keys)
            until = None
    else:
        os.kill(pid, signal.SIGKILL)  # a test fails, it does not hang
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return out.decode(), os.waitstatus_to_exitcode(status)


@pytest.fixture
def plain(tmp_path):
    """Without predictions, so that torch is not loaded."""
    record = folders.opened(tmp_path / "run")
    folders.checkpoint(record, folders.epochs(record, instruments=False))
    yield record
    record.close()


def test_ctrl_c_leaves_with_zero_and_a_clean_terminal(plain):
    text, code = pty(["watch", str(plain.folder), "--interval", "0.1"], until=b"epoch 4 of 10")
    assert code == 0
    for on, off in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")):
        assert text.count(on) == text.count(off) == 1
    after = text.split("\x1b[?1049l")[1]
    assert "epoch 4 of 10" in after  # what was seen last stays
    assert "Traceback" not in text
    assert "interrupted" not in text


def test_it_ends_when_the_run_does(plain):
    plain.finish(folders.summary())
    text, code = pty(["watch", str(plain.folder)])
    assert code == 0
    assert "finished" in text.split("\x1b[?1049l")[1]


def test_without_colours(plain):
    words = ["watch", str(plain.folder), "--interval", "0.1"]
    text, code = pty(words, until=b"epoch 4 of 10", NO_COLOR="1")
    assert code == 0
    assert "\x1b[32m" not in text
    assert "\x1b[38" not in text


def test_a_dumb_terminal_gets_one_frame_in_letters(plain):
    text, code = pty(["watch", str(plain.folder)], TERM="dumb", PYTHONIOENCODING="ascii")
    assert code == 0
    assert "\x1b" not in text
    assert "epoch 4 of 10" in text
    assert "***" in text
    assert max(len(line.rstrip("\r")) for line in text.split("\n")) <= 60


def test_what_is_no_run_is_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run and no study; name the folder"):
        watch(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        watch(tmp_path / "absent")
    with pytest.raises(InputError, match="interval is 0; it must be positive"):
        watch(tmp_path, interval=0)
