"""Every experiment still runs, and has a README with a command and a verdict."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphdyn.grid import Study
from graphdyn.reproduce import rows

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def folders():
    return sorted(path.parent for path in EXPERIMENTS.glob("*/run.py"))


@pytest.mark.parametrize("folder", folders(), ids=lambda p: p.name)
def test_the_readme_names_question_command_and_verdict(folder):
    text = (folder / "README.md").read_text()
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?")
    assert f"python experiments/{folder.name}/run.py" in text
    assert "**Verdict" in text


def test_the_readme_of_published_figures_has_every_row_and_its_band():
    """Its rows are recipes, run by `graphdyn reproduce`; the verdicts are in the table."""
    text = (EXPERIMENTS / "accuracy" / "README.md").read_text()
    assert text.splitlines()[0].endswith("?")
    assert "graphdyn reproduce " in text
    assert "**Verdict" in text
    table = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    for name, row in rows().items():
        assert name in table, f"{name} is not in the table"
        assert row.band is None or f"{row.band[0]:g}-{row.band[1]:g}" in table[name]


@pytest.mark.dataset
@pytest.mark.parametrize(
    "name",
    [
        "protocol",
        "arxiv_full_batch",
        "sampler_bias",
        "gradient_error",
        "error_decomposition",
        "exponential_lr",
        "oversmoothing",
        "gnn_speed",
        "interval_coverage",
        pytest.param("sampler_accuracy", marks=pytest.mark.slow),
        pytest.param("time_to_target", marks=pytest.mark.slow),
        pytest.param("deep_histories", marks=pytest.mark.slow),
        pytest.param("rotational_equilibrium", marks=pytest.mark.slow),
        pytest.param("sampler_swap", marks=pytest.mark.slow),
    ],
)
def test_it_runs(name, data_root, tmp_path):
    command = [sys.executable, str(EXPERIMENTS / name / "run.py"), "--tiny", "--out", str(tmp_path)]
    environment = {**os.environ, "GRAPHDYN_DATA": str(data_root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*/study.toml")), ids=lambda p: p.parent.name
)
def test_a_kept_study_can_be_read_and_says_its_verdict(path):
    study = Study.from_toml(path)
    cells = study.expand()
    assert study.reference(cells) is not None
    text = (path.parent / "README.md").read_text()
    assert text.startswith("# ")
    assert text.splitlines()[0].endswith("?")
    assert f"graphdyn study experiments/{path.parent.name}/study.toml" in text
    assert "**Verdict" in text
