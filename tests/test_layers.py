"""The flow has one direction, and a test holds it: imports only point upstream."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graphdyn

PACKAGE = Path(graphdyn.__file__).parent
REPO = Path(__file__).parents[1]

FLOW = (
    "errors",
    "files",
    "parallel",
    "recipes",
    "keys",
    "sparse",
    "graph",
    "interop",
    "kernels",
    "data",
    "batch",
    "costs",
    "samplers",
    "pyg",
    "prefetch",
    "cache",
    "loader",
    "pyg_loader",
    "models",
    "fit",
    "loss",
    "precision",
    "gradient",
    "last_layer",
    "metrics",
    "sweep",
    "layerwise",
    "evaluation",
    "optim",
    "checkpoint",
    "memories",
    "presets",
    "regularizers",
    "step",
    "estimate",
    "schedule",
    "statistics",
    "survival",
    "improvement",
    "comparison",
    "groups",
    "isolate",
    "sight",
    "problem",
    "graph_problem",
    "node_problem",
    "pyg_problem",
    "nullspace",
    "symmetry",
    "snapshot",
    "instruments",
    "budget",
    "journal",
    "sinks",
    "micro",
    "optimizer_steps",
    "touched",
    "last_step",
    "readings",
    "watch",
    "heard",
    "turns",
    "recorder",
    "lightning",
    "config",
    "progress",
    "machine",
    "boards",
    "record",
    "shared_record",
    "assembly",
    "instrumented",
    "seed_state",
    "limits",
    "whole",
    "seed",
    "runner",
    "verdict",
    "reproduce",
    "report",
    "executors",
    "grid",
    "precheck",
    "work",
    "tuning",
    "study_folder",
    "forecast",
    "study",
    "study_cli",
    "cli",
    "__main__",
)
# Conversions live beside the graph that offers them as methods, and a pattern is turned around by a
# compiled loop; the import happens inside the method.
BACK_DOORS = {
    ("graph", "interop"): "method",
    ("sparse", "kernels"): "method",
    ("data", "progress"): "leaf",
}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path):
    """Every graphdyn module that a file imports, wherever in the file, with the names taken."""
    package = ["graphdyn", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            if origin == "graphdyn":
                yield from (f"graphdyn.{alias.name}" for alias in node.names)
            else:
                yield origin


def test_every_module_has_its_place_in_the_flow():
    assert {stage(path) for path in modules()} == set(FLOW) | (
        {"datasets"} if (PACKAGE / "datasets").exists() else set()
    )


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upstream(path):
    here = stage(path)
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in ("experiments", "datasets", "benchmarks", "tests"), name
        if top != "graphdyn":
            continue
        assert rest, f"{path.name} imports the package root"
        if rest[0] == "datasets" or rest[0] == here or (here, rest[0]) in BACK_DOORS:
            continue
        assert FLOW.index(rest[0]) < FLOW.index(here), (
            f"{here} imports {rest[0]}, which is downstream"
        )


def test_the_checker_sees_every_form_of_import(tmp_path):
    forms = {
        "import graphdyn.cli": "graphdyn.cli",
        "from graphdyn import cli": "graphdyn.cli",
        "from graphdyn.report import tables": "graphdyn.report",
        "def f():\n    from graphdyn.cli import main": "graphdyn.cli",
    }
    for source, expected in forms.items():
        path = PACKAGE / "_probe_.py"
        node_path = tmp_path / "probe.py"
        node_path.write_text(source)
        found = list(_imported_as(node_path, path))
        assert found == [expected], source
    relative = tmp_path / "relative.py"
    relative.write_text("from .. import cli\nfrom .x import y")
    assert list(_imported_as(relative, PACKAGE / "models" / "probe.py")) == [
        "graphdyn.cli",
        "graphdyn.models.x",
    ]


def _imported_as(source: Path, place: Path):
    class Placed(type(place)):
        def read_text(self, *args, **kwargs):
            return source.read_text()

    return imported(Placed(place))


def test_all_names_are_true_and_in_the_order_of_the_flow():
    homes = graphdyn._MODULE_OF
    assert len(homes) == sum(len(names.split()) for names in graphdyn._HOME.values())
    assert len(homes) > 50
    for name in graphdyn.__all__:
        assert getattr(graphdyn, name).__module__.startswith(f"graphdyn.{homes[name]}")
    order = [FLOW.index(homes[name]) for name in graphdyn.__all__]
    assert order == sorted(order)


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    seen = {a.name: n.module for n in imports for a in n.names}
    assert seen == {name: f"graphdyn.{home}" for name, home in graphdyn._MODULE_OF.items()}
    assert all(a.asname == a.name for n in imports for a in n.names)


def test_the_door_is_open_and_cheap():
    """All names by a star and by ``dir``; nothing heavy is imported before one is used."""
    program = """
import sys, graphdyn
assert not {"torch", "numpy", "numba"} & {*sys.modules}
assert {*graphdyn.__all__} <= {*dir(graphdyn)}
from graphdyn import *
assert GCN is graphdyn.models.GCN and "Recorder" in globals()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_data_folders_are_not_packages():
    for folder in ("datasets", "experiments", "tests", "benchmarks"):
        assert not list((REPO / folder).rglob("__init__.py")), folder
