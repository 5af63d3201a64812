"""The command line: exit codes, one sentence an error, tables and pictures that say the truth."""

import struct

import pytest

from graphdyn.cli import main
from graphdyn.report.tables import labels, read_run

TRAIN = ["train", "--dataset", "csbm", "--hidden", "8", "--epochs", "3", "--seeds", "2"]


def test_train_prints_the_table_and_report_draws_the_curves(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*TRAIN, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "gcn on csbm" in printed
    assert str(out) in printed.replace("\n", "")

    assert main(["report", str(out)]) == 0
    data = (out / "curves.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 800
    assert height > 300


def test_watch_prints_one_frame_where_there_is_no_terminal(tmp_path, capsys):
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["watch", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "csbm · gcn · full" in captured.out
    assert "finished" in captured.out
    assert "100%" in captured.out
    assert captured.err == ""


def test_ctrl_c_while_watching_is_no_failure(tmp_path, capsys, monkeypatch):
    from graphdyn.report import live

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "watch", pressed)
    assert main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_report_draws_what_a_recorder_wrote_without_a_run(tmp_path, capsys):
    import torch

    import graphdyn as gd

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gd.Recorder(model, optimizer, [gd.UpdateRatio(every=1)], to=tmp_path / "mine"):
        for _ in range(3):
            model(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
    assert main(["report", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "dynamics.png").stat().st_size > 10_000
    assert "curves" not in capsys.readouterr().out


def test_report_compares_runs_and_names_what_differs(tmp_path, capsys):
    for norm in ("none", "batch"):
        assert main([*TRAIN, "--norm", norm, "--out", str(tmp_path / norm)]) == 0
    capsys.readouterr()
    png = tmp_path / "both.png"
    assert main(["report", str(tmp_path / "none"), str(tmp_path / "batch"), "--png", str(png)]) == 0
    printed = capsys.readouterr().out
    assert "norm none" in printed
    assert "norm batch" in printed
    assert png.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean train"),
        (["train", "--dataset", "coraa", "--out", "x"], "unknown data set 'coraa'"),
        (["train", "--config", "absent.toml"], "cannot read absent.toml"),
        (["report", "nowhere"], "nowhere holds no run"),
        (["watch", "nowhere"], "nowhere is not a folder; name one that"),
        (["watch", ".", "--interval", "-1"], "interval is -1.0; it must be positive"),
        (["data", "info", "coraa"], "unknown data set 'coraa'"),
        (["data", "info"], "needs the name of a data set"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("graphdyn: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


SAGE_MAX = ["--model", "sage", "--model-options", "aggregator", "max"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["neighbour"], "unknown sampler 'neighbour'; did you mean neighbor"),
        (["neighbor", "--fanouts", "0"], "fan-out 0 is not allowed"),
        (["neighbor", "--fanouts=-2"], "fan-out -2 is not allowed"),
        (["neighbor", "--fanouts", "5,5,5"], "3 fan-outs were given, but the model has 2"),
        (
            ["neighbor", "--batch-size", "141"],
            "batch_size is 141, but there are 140 training nodes",
        ),
        (["full", "--batch-size", "5"], "unknown option of the sampler full 'batch_size'"),
        (["ladies", "--sampler-options", "nodes", "100000"], "the budget is 100000 nodes"),
        (["cluster", "--sampler-options", "parts", "100000"], "100000"),
        (["neighbor", *SAGE_MAX], "use the estimator 'unit', the aggregator mean or sum"),
    ],
)
def test_a_sampler_that_does_not_fit_is_one_sentence(words, message, capsys, tmp_path):
    out = tmp_path / "run"
    assert main([*TRAIN, "--sampler", *words, "--out", str(out)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("graphdyn: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not out.exists()


def test_runs_are_told_apart_by_sampler_and_never_by_workers(tmp_path):
    sampled = ["--sampler", "neighbor", "--fanouts", "4,3", "--batch-size", "30"]
    assert main([*TRAIN, "--out", str(tmp_path / "full"), "--workers", "0"]) == 0
    assert main([*TRAIN, *sampled, "--out", str(tmp_path / "neighbor")]) == 0
    runs = [read_run(tmp_path / name)["config"] for name in ("full", "neighbor")]
    assert labels(runs) == [
        "gcn on csbm",
        "gcn on csbm, sampler neighbor, batch_size 30, fanouts 4,3",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--nonsense", "3"], "--nonsense"),
        (["train", "--layers", "many"], "--layers"),
        (["train", "--dropout", "2"], "dropout is 2.0; it must lie in [0, 1)"),
        (["report"], "RUN"),
        (["watch"], "FOLDER"),
        (["data", "fetch", "cora"], "fetch"),
    ],
)
def test_words_that_do_not_parse_end_with_two(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "doctor" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("graphdyn ")


def test_data_list_info_verify(capsys, tmp_path):
    assert main(["data", "list", "--data-root", str(tmp_path)]) == 0
    assert "ogbn-papers100m" in capsys.readouterr().out.lower()
    assert main(["data", "info", "cora", "--data-root", str(tmp_path)]) == 0
    assert "2,708" in capsys.readouterr().out
    assert main(["data", "verify", "cora", "--data-root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "missing" in captured.out
    assert "graphdyn data get cora" in captured.err


@pytest.mark.dataset
def test_verify_passes_on_the_real_files(data_root, capsys):
    assert main(["data", "verify", "cora", "--data-root", str(data_root)]) == 0
    assert "missing" not in capsys.readouterr().out


def test_doctor_names_versions_and_data(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "torch " in printed
    assert "numba" in printed
    assert "csbm" in printed
