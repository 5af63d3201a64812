"""Tuning: a search on a known function; with real runs in tests/test_study.py."""

import math
import statistics
from dataclasses import replace

import pytest

pytest.importorskip("optuna", reason="pip install 'graphdyn[study]'")

from graphdyn.config import Config
from graphdyn.errors import GraphdynError, InputError, Interrupted
from graphdyn.grid import Tune
from graphdyn.tuning import Search, tune

SEARCH = {"trials": 30, "lr": (1e-5, 1.0)}


def search(folder, **changes):
    config = Config(dataset="csbm", sampler="neighbor")
    return Search("cell", "cell", config, Tune(**{**SEARCH, **changes}), folder)


def peaked(config):
    """Best at a rate of 0.01."""
    return {"validation": {"mean": -abs(math.log10(config.lr) + 2)}}


def test_the_search_learns_from_what_it_is_told(tmp_path):
    best = tune(search(tmp_path), peaked)
    far = [-t["value"] for t in search(tmp_path).trials()]
    assert len(far) == 30
    assert statistics.median(far[10:]) < 0.7 * statistics.median(far[:10])
    assert abs(math.log10(best["lr"]) + 2) == min(far)


@pytest.mark.parametrize("after", [1, 12, 29])
def test_a_search_goes_on_as_if_it_had_never_stopped(tmp_path, after):
    straight, broken, calls = search(tmp_path / "a"), search(tmp_path / "b"), []

    def stopping(config):
        if len(calls) == after:
            raise Interrupted("stopped.")
        calls.append(config)
        return peaked(config)

    best = tune(straight, peaked)
    with pytest.raises(Interrupted):
        tune(broken, stopping)
    assert broken.best is None
    assert len(broken.trials()) == after
    assert tune(broken, peaked) == best == broken.best
    assert broken.trials() == straight.trials()


def test_all_cells_begin_with_the_same_trials(tmp_path):
    other = replace(search(tmp_path), slug="other")
    tune(search(tmp_path), peaked)
    tune(other, lambda config: {"validation": {"mean": config.lr}})
    first, second = ([t["params"] for t in s.trials()] for s in (search(tmp_path), other))
    assert first[:10] == second[:10]
    assert first != second


def test_a_search_without_an_end_says_why(tmp_path):
    def refuse(config):
        raise GraphdynError("the loss became inf.")

    with pytest.raises(GraphdynError, match="none of 30 trials of cell came to an end.*became inf"):
        tune(search(tmp_path), refuse)


def test_without_validation_nodes_there_is_nothing_to_tune_on(tmp_path):
    with pytest.raises(InputError, match="csbm has no validation nodes"):
        tune(search(tmp_path), lambda config: {"validation": None})
