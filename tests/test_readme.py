"""The README tells the truth: its example runs, its commands exist, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("source", EXAMPLES, ids=["full graph", "sampled"])
def test_the_library_examples_run_and_learn(source):
    statements = [line for line in source.splitlines() if line.strip()]
    assert len(statements) <= 15

    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.splitlines()[-1].removeprefix("test accuracy "))
    assert accuracy > 0.6


PAGES = sorted((REPO / "docs").glob("*.md"))
RUN = r"<!-- tests/test_readme.py runs this -->\n```python\n(.*?)```"
SNIPPETS = [
    pytest.param(source, id=f"{page.stem} {i}")
    for page in PAGES
    for i, source in enumerate(re.findall(RUN, page.read_text(), re.S))
]


@pytest.mark.parametrize("source", SNIPPETS)
def test_the_examples_of_the_docs_run(source):
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert named - targets == set()


def test_every_link_leads_somewhere():
    for page in [
        REPO / "README.md",
        *REPO.glob("docs/*.md"),
        *REPO.glob("experiments/*/README.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_training_flag_named_exists():
    from graphdyn.config import Config

    commands = re.findall(r"graphdyn train (--.*)", README)
    assert len(commands) == 5
    for flag in re.findall(r"--([a-z-]+)", " ".join(commands)):
        assert flag.replace("-", "_") in Config.__dataclass_fields__
