"""Journal: a crash loses what was not written and no more; resumed, nothing is lost or doubled."""

import pytest

from graphdyn import journal as module
from graphdyn.errors import RecordError
from graphdyn.journal import Clock, Event, Journal, Line, Metric, read_table


def note(journal, *steps):
    for step in steps:
        clock = Clock(3, step, step // 2, 0.25 * step, 10 * step, 30 * step)
        journal.add(clock, Metric("loss", "step", float(step), 0.1, None, 4, 1))
        journal.add(clock, Line("spectrum", "all", [0.0, 1.0], [step, -step]))
        journal.add(clock, Event("mark", f"step {step}"))


def steps(folder, name="metrics"):
    return read_table(folder, name).column("step").to_pylist()


def test_rows_come_back_as_they_went_in(tmp_path):
    journal = Journal(tmp_path / "run")
    note(journal, 5)
    assert journal.waiting == 3
    assert (journal.write(), journal.waiting) == (1, 0)
    assert journal.write() == 1  # nothing to write is no part
    at = {"seed": 3, "step": 5, "epoch": 2, "seconds": 1.25, "edges": 50, "bytes": 150}
    own = {"name": "loss", "group": "step", "value": 5.0, "se": 0.1, "pred": None, "n": 4}
    for _ in range(2):  # in parts, and compacted
        assert read_table(tmp_path / "run").to_pylist() == [at | own | {"level": 1}]
        line = {"name": "spectrum", "group": "all", "x": [0.0, 1.0], "y": [5.0, -5.0]}
        assert read_table(tmp_path / "run", "curves").to_pylist() == [at | line]
        event = {"name": "mark", "text": "step 5"}
        assert read_table(tmp_path / "run", "events").to_pylist() == [at | event]
        journal.compact()
        journal.clear_parts()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "curves.parquet", "events.parquet", "metrics.parquet",
    ]  # fmt: skip


def test_parts_after_a_checkpoint_are_dropped(tmp_path):
    journal = Journal(tmp_path)
    for step in range(4):
        note(journal, step)
        journal.write()
    note(journal, 4)  # and what was never written
    again = Journal(tmp_path)
    note(again, 99)
    again.keep(2)
    assert (again.waiting, again.parts) == (0, 2)
    assert steps(tmp_path) == [0, 1]
    note(again, 7)
    assert again.write() == 3
    for name in ("metrics", "curves", "events"):
        assert steps(tmp_path, name) == [0, 1, 7]
    again.keep(0)
    assert steps(tmp_path) == []


def test_parts_that_a_table_lacks(tmp_path):
    journal = Journal(tmp_path)
    journal.add(Clock(0, 0, 0, 0.0, 0), Event("mark", ""))
    journal.write()
    with pytest.raises(RecordError, match="holds no metrics"):
        read_table(tmp_path)
    note(journal, 1)
    journal.write()
    journal.keep(1)
    assert steps(tmp_path, "events") == [0]
    assert steps(tmp_path) == []


def test_a_crash_while_a_part_is_written(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    note(journal, 0)
    journal.write()
    note(journal, 1)
    writes, write = [], module._write_part

    def dies(path, name, rows):
        write(path, name, rows)
        writes.append(name)
        if len(writes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        journal.write()
    monkeypatch.undo()
    # Half of the second part is there, which no checkpoint has counted.
    assert steps(tmp_path) == [0, 1]
    assert steps(tmp_path, "events") == [0]
    again = Journal(tmp_path)
    again.keep(1)
    assert [steps(tmp_path, name) for name in ("metrics", "curves", "events")] == [[0]] * 3
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_crash_while_tables_are_compacted(tmp_path, monkeypatch, after):
    import pyarrow.parquet as pq

    journal = Journal(tmp_path)
    note(journal, 0, 1)
    written, write = [], pq.write_table

    def dies(table, path):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(path)
        write(table, path)

    monkeypatch.setattr(pq, "write_table", dies)
    with pytest.raises(KeyboardInterrupt):
        journal.compact()
    monkeypatch.undo()
    for name in ("metrics", "curves", "events"):
        assert steps(tmp_path, name) == [0, 1]
    journal.compact()
    journal.clear_parts()
    for name in ("metrics", "curves", "events"):
        assert steps(tmp_path, name) == [0, 1]


def test_a_disk_that_refuses(tmp_path):
    (tmp_path / "run").write_text("a file")
    journal = Journal(tmp_path / "run")
    note(journal, 0)
    with pytest.raises(RecordError, match="cannot write to"):
        journal.write()


def test_what_nothing_was_noted_of_has_no_table_but_metrics(tmp_path):
    Journal(tmp_path / "run").compact()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["metrics.parquet"]
    assert read_table(tmp_path / "run").num_rows == 0
    assert Clock(0, 1, 2, 3.0, 4).bytes == 0


def test_a_folder_that_holds_nothing(tmp_path):
    with pytest.raises(RecordError, match="holds no metrics; name the folder of a run"):
        read_table(tmp_path)
