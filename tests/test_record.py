"""Record: nothing lost, nothing doubled, nothing half-written."""

import json
import resource
import subprocess
import sys

import pytest
import torch

from graphdyn.config import Config
from graphdyn.errors import RecordError
from graphdyn.files import replacing
from graphdyn.journal import Clock, Metric, read_table
from graphdyn.record import Record

CLOCK = Clock(seed=0, step=3, epoch=3, seconds=0.5, edges=10, bytes=80)


@pytest.fixture
def config(tmp_path):
    return Config(out=tmp_path / "run")


def test_rows_survive_in_order_and_with_their_types(config):
    record = Record.open(config)
    record.add(CLOCK, Metric("loss", "train", 0.25))
    record.save({"w": torch.arange(3.0)}, {"results": []})
    record.add(CLOCK, Metric("angle", "layer0", 0.5, se=0.1, pred=0.4))
    record.save({}, {"results": []})
    record.finish({"done": True})
    record.close()

    rows = read_table(config.folder).to_pylist()

    assert [r["name"] for r in rows] == ["loss", "angle"]
    assert rows[0] == {
        "seed": 0, "step": 3, "epoch": 3, "seconds": 0.5, "edges": 10, "bytes": 80,
        "name": "loss", "group": "train", "value": 0.25, "se": None, "pred": None, "n": None, "level": None,
    }  # fmt: skip
    assert (rows[1]["se"], rows[1]["pred"]) == (0.1, 0.4)
    assert sorted(p.name for p in config.folder.iterdir()) == [
        ".lock", "checkpoint.safetensors", "config.json", "metrics.parquet", "summary.json",
    ]  # fmt: skip


def test_rows_after_the_last_checkpoint_are_dropped_on_resume(config, monkeypatch):
    record = Record.open(config)
    record.add(CLOCK, Metric("loss", "train", 1.0))
    record.save({"w": torch.ones(2)}, {"results": [], "mark": 1})
    record.add(CLOCK, Metric("loss", "train", 2.0))
    # The process dies after the part is written and before the checkpoint that counts it.
    with monkeypatch.context() as patch:
        patch.setattr(
            "graphdyn.record.write_tensors", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            record.save({"w": torch.zeros(2)}, {"results": [], "mark": 2})
    record.close()
    assert read_table(config.folder).num_rows == 2

    again = Record.open(config)
    tensors, state = again.load()
    assert read_table(config.folder).num_rows == 1
    again.add(CLOCK, Metric("loss", "train", 3.0))
    again.save({}, {"results": []})
    again.close()

    assert state["mark"] == 1
    assert tensors["w"].tolist() == [1.0, 1.0]
    assert read_table(config.folder)["value"].to_pylist() == [1.0, 3.0]


def test_another_configuration_in_the_folder_is_refused_and_named(config):
    Record.open(config).close()
    with pytest.raises(RecordError, match=r"another configuration \(layers: 2 -> 4\)"):
        Record.open(Config(out=config.out, layers=4))


def test_a_folder_that_is_not_a_run_is_refused(config):
    config.folder.mkdir()
    (config.folder / "thesis.tex").write_text("years of work")
    with pytest.raises(RecordError, match="not empty and holds no run"):
        Record.open(config)
    assert [p.name for p in config.folder.iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_write_one_folder(config):
    record = Record.open(config)
    with pytest.raises(RecordError, match="another process"):
        Record.open(config)
    record.close()
    Record.open(config).close()


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write to"):
        Record.open(Config(out=tmp_path / "file" / "run"))


FULL_DISK = """
import torch
from pathlib import Path
from graphdyn.config import Config
from graphdyn.errors import RecordError
from graphdyn.record import Record
import resource, signal
record = Record.open(Config(out=Path({folder!r})))
record.save({{"w": torch.ones(10)}}, {{"results": [], "mark": 1}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    record.save({{"w": torch.ones(100_000)}}, {{"results": [], "mark": 2}})
except RecordError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_last_checkpoint(config):
    source = FULL_DISK.format(folder=str(config.out))
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )

    assert "cannot write to" in done.stdout, done.stderr
    record = Record.open(config)
    tensors, state = record.load()
    record.close()
    assert state["mark"] == 1
    assert tensors["w"].numel() == 10
    assert not list(config.folder.glob(".*.part"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 65536


def test_a_damaged_checkpoint_is_one_sentence(config):
    record = Record.open(config)
    record.save({"w": torch.ones(10)}, {"results": []})
    path = config.folder / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RecordError, match="damaged"):
        record.load()
    record.close()


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="half"), replacing(path) as part:
        part.write_text("new")
        raise ValueError("half")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_config_is_written_whole_and_readable(config):
    Record.open(config).close()
    document = json.loads((config.folder / "config.json").read_text())
    assert document["id"] == config.id
    assert document["layers"] == 2


def test_reading_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(RecordError, match="holds no metrics"):
        read_table(tmp_path)
