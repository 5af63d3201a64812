"""What was compared is what the run folders say, tuned settings included."""

import json
import shutil

from report.study.studies import imagined

from graphdyn.report.study.data import read_study
from graphdyn.report.study.facts import failures, reproduction, setup


def test_settings_are_those_of_the_runs(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "study")
    path = copy / "cells" / "cora-gcn-neighbor" / "seed-0" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lr": 0.0625}))
    told = {cell: given for cell, given, _ in reproduction(read_study(copy))}
    assert told["cora/gcn/neighbor"] == "sampler neighbor, lr 0.0625"
    assert told["citeseer/gcn/neighbor"] == "dataset citeseer, sampler neighbor"


def test_before_the_first_run_they_are_those_of_the_study():
    study = imagined({("d", "a"): [0.5]}, "a")
    study.cells["d", "a"].config["lr"] = 0.5
    study.cells["d", "a"].runs.clear()
    assert reproduction(study) == [("d/a", "lr 0.5", "cells/d-a/seed-*")]


def test_lost_runs_come_first(folder):
    kinds = [failure.kind for failure in failures(read_study(folder))]
    assert sorted(kinds[:2]) == ["diverged", "failed"]
    assert sorted(kinds[2:]) == ["not started", "unfinished"]


def test_budgets_seeds_and_rules_in_words():
    study = imagined({("d", "a"): [0.5] * 3}, "a")
    budget = {"edges": 2_000_000, "seconds": 60.0}
    study.document.update(budget=budget, seeds=[3, 5, 9])
    study.document["tuning"] = {"trials": 16, "lr": [1e-4, 0.1]}
    study.cells["d", "a"].config.update(select="loss", patience=20)
    facts = dict(setup(study))
    assert facts["Budget a run"] == "2 M edges and 60 s, the same for all methods"
    assert facts["Seeds"].startswith("3: 3, 5, 9, the same")
    assert "the best validation loss" in facts["Selection"]
    assert "after 20 evaluations" in facts["Selection"]
    assert facts["Tuning"] == "every cell alike, on validation: trials 16, lr 0.0001|0.1"
    assert facts["Runs"] == "3 of 3 complete"
