"""The wheel holds graphdyn alone, with the cards inside; the command line is quick to answer."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "-w",
        str(out),
        str(REPO),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_graphdyn_alone(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"graphdyn"}


def test_the_wheel_holds_every_module_card_and_recipe(wheel):
    names = set(wheel.namelist())
    modules = {str(p.relative_to(REPO)) for p in (REPO / "graphdyn").rglob("*.py")}
    cards = {f"graphdyn/datasets/{p.name}" for p in (REPO / "datasets").glob("*.toml")}
    assert len(cards) > 30
    recipes = {f"graphdyn/accuracy/{p.name}" for p in (REPO / "experiments/accuracy").glob("*.py")}
    assert len(recipes) > 4
    assert modules - names == set()
    assert cards - names == set()
    assert recipes - names == set()
    assert "graphdyn/py.typed" in names


def test_constraints_pin_every_dependency():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        d for ds in project["optional-dependencies"].values() for d in ds
    ]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (REPO / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = {d.split(">")[0].split("=")[0].split("[")[0].strip() for d in wanted}
    assert names - pinned == set()


@pytest.mark.parametrize(
    "words",
    [["--help"], ["train", "--help"], ["reproduce", "--help"], ["data", "--help"], ["nonsense"]],
)
def test_the_command_line_answers_before_anything_heavy_is_loaded(words):
    source = (
        "import sys\nfrom graphdyn.cli import main\n"
        f"try:\n    code = main({words!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'numba', 'pyarrow', 'pandas', 'torch_geometric', 'matplotlib'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"LOADED [] {2 if words == ['nonsense'] else 0}"


def test_core_imports_need_only_torch_numpy_and_numba():
    """The GPU check runs from a source tree where the rest is not installed."""
    source = (
        "import builtins\n"
        "real = builtins.__import__\n"
        "def importing(name, *args, **kwargs):\n"
        "    if name.split('.')[0] in {'tyro', 'ogb', 'pymetis', 'rich', 'pyarrow', 'safetensors',\n"
        "                              'torch_geometric', 'matplotlib', 'pandas'}:\n"
        "        raise ModuleNotFoundError(name)\n"
        "    return real(name, *args, **kwargs)\n"
        "builtins.__import__ = importing\n"
        "import graphdyn as gd\n"
        "graph = gd.load('csbm')\n"
        "model = gd.GCN(graph.num_features, graph.num_classes)\n"
        "batch = gd.full_batch(graph, model.propagation)\n"
        "steps = gd.train(model, gd.full_batches(batch, range(2)), gd.build_optimizer(model))\n"
        "print(len(list(steps)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, cwd=REPO
    )
    assert done.stdout.strip() == "2", done.stderr
