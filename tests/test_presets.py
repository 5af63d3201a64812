"""Methods by name: every preset trains, resumes to the bit, and may have its parts replaced."""

import ast
import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_runner import assert_same_run, config

import graphdyn as gd
from graphdyn.errors import InputError, Interrupted
from graphdyn.machine import check_memory
from graphdyn.memories import MEMORIES, Memory
from graphdyn.presets import PRESETS, method, named, split
from graphdyn.runner import run
from graphdyn.samplers import SAMPLERS

SMALL = {"seeds": 1, "epochs": 3, "norm": "layer", "head": "linear"}
# Parts of twenty nodes: the graph of these tests has 2,000.
TINY = {"cluster": {"parts": 20, "parts_per_batch": 2}}


def options(preset):
    sampler = PRESETS[preset].sampler
    size = {"batch_size": 30} if hasattr(SAMPLERS[sampler], "batch_size") else {}
    return {"sampler_options": TINY.get(sampler, {}), **size}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_from_its_name_alone(tmp_path, preset):
    summary = run(config(tmp_path, preset=preset, **SMALL))
    assert summary["preset"] == preset
    assert summary["sampler"] == PRESETS[preset].sampler
    assert summary["memory"] == PRESETS[preset].memory
    assert set(summary["memory_options"]) == set(split(PRESETS[preset].memory))
    assert summary["seconds"]["memory"] > 0 or not PRESETS[preset].memory


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_stopped_within_an_epoch_ends_in_the_same_bits(tmp_path, monkeypatch, preset):
    from graphdyn import seed

    told = {**SMALL, **options(preset), "checkpoint_seconds": 0.0}
    run(config(tmp_path, "straight", preset=preset, **told))
    at, step = [], seed.Seed.step

    def stop(self, done, *more):
        step(self, done, *more)
        at.append(done.index)
        if len(at) == 4:
            raise Interrupted("stop")

    with monkeypatch.context() as patch:
        patch.setattr(seed.Seed, "step", stop)
        with pytest.raises(Interrupted):
            run(config(tmp_path, "stopped", preset=preset, **told))
    run(config(tmp_path, "stopped", preset=preset, **told))
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_parts_of_a_preset_can_be_replaced():
    recipe = method("vr-gcn", sampler="labor", batch_size=30)
    assert type(recipe.sampler) is SAMPLERS["labor"]
    assert recipe.sampler.fanouts == (2,)  # told by the preset, and the new sampler has it too
    assert recipe.memories[0].mode == "control"
    assert method("vr-gcn", memory="").memories == ()
    assert method(sampler="node", memory="history", batch_size=50).memories[0].mode == "replace"
    assert type(method().sampler) is SAMPLERS["full"]
    both = method("bandit", batch_size=30, clip=5.0)  # a sampler and a memory of one name
    assert (both.sampler.batch_size, both.memories[0].clip) == (30, 5.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "vrgcn"}, "unknown preset 'vrgcn'; did you mean vr-gcn"),
        ({"memory": "histori"}, "unknown memory 'histori'; did you mean history"),
        ({"preset": "gas", "sampler": "clusters"}, "unknown sampler 'clusters'"),
        ({"sampler": "cluster", "parts_per_bach": 3}, "did you mean parts_per_batch"),
        ({"sampler": "full", "memory": "history"}, "the sampler 'full' computes every node"),
        ({"sampler": "shadow", "memory": "history"}, "the sampler 'shadow' is a model of its own"),
        ({"preset": "gas", "mode": "sideways"}, "unknown mode 'sideways'"),
        ({"preset": "gas", "momentum": 0}, "momentum is 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(given, message):
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=8)
    with pytest.raises(InputError, match=message):
        method(**given).prepare(model, graph)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "vr-gcn", "--model", "gat"], "needs messages that are summed, but GAT"),
        (["--memory-options", "mode", "control"], "memory option mode was given"),
        (
            ["--preset", "gas", "--memory-options", "modes", "control"],
            "unknown option of the memory",
        ),
    ],
)
def test_the_command_refuses_with_code_2_and_leaves_nothing(tmp_path, flags, message, capsys):
    from graphdyn.cli import main

    out = tmp_path / "run"
    assert main(["train", "--dataset", "csbm", *flags, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_cannot_fit_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    from graphdyn import machine

    with pytest.raises(InputError, match=r"need 1024.0 GiB, but cpu has \d+\.\d GiB free"):
        check_memory(1 << 40, torch.device("cpu"))
    monkeypatch.setattr(machine, "free_memory", lambda device: 1000)
    with pytest.raises(InputError, match="the memories of this method need"):
        run(config(tmp_path, preset="gas", **SMALL))
    assert not (tmp_path / "run").exists()


# Bytes on N nodes, T of which train, that are declared and held, but made anew by a resumed run.
BESIDE = {
    "vr-gcn-pp": lambda graph: graph.num_nodes * graph.num_features * 4,  # A x
    "saga": lambda graph: graph.num_nodes * 8,  # places in the table
    "mvs": lambda graph: graph.split.train.numel() * 8,  # weights of the seeds
}


@pytest.mark.parametrize("preset", PRESETS)
def test_declared_bytes_are_those_that_are_held(preset):
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=8, layers=3, head="linear")
    recipe = method(preset, **TINY.get(PRESETS[preset].sampler, {}))
    recipe = fitted(recipe, graph)
    _, memory = recipe.prepare(model, graph)
    memory.start()
    held = sum(t.numel() * t.element_size() for t in memory.state().values())
    held += BESIDE[preset](graph) if preset in BESIDE else 0
    assert 0 <= held - recipe.declare(model, graph) <= 64  # a few scalars are not declared


def fitted(recipe, graph):
    """The method with a batch that the graph has room for."""
    if not hasattr(recipe.sampler, "batch_size"):
        return recipe
    return dataclasses.replace(recipe, sampler=dataclasses.replace(recipe.sampler, batch_size=30))


def test_a_memory_of_nothing_changes_nothing():
    graph = gd.load("csbm")
    weights = []
    for memory in (None, Memory()):
        model = gd.GCN(graph.num_features, graph.num_classes, hidden=8, norm="batch", seed=1)
        plans = gd.Neighbor(batch_size=40).prepare(graph, model.propagation, model.num_hops)
        optimizer = gd.build_optimizer(model, "adam", lr=0.01)
        more = {} if memory is None else {"memory": memory}
        for _ in gd.train(model, gd.Loader(plans, graph, epochs=2), optimizer, **more):
            pass
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


ROOT = Path(__file__).parents[1]


def explained(field):
    """The text under a field of the configuration, on one line and without what stands in brackets."""
    source = ast.parse((ROOT / "graphdyn" / "config.py").read_text())
    (body,) = (n.body for n in source.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    (text,) = (
        after.value.value
        for node, after in pairwise(body)
        if isinstance(node, ast.AnnAssign) and node.target.id == field
    )
    return " ".join(re.sub(r"\(.*?\)", "", text).split())


@pytest.mark.parametrize(
    ("field", "start", "end", "known"),
    [
        ("preset", "by name: ", ". Sampler", PRESETS),
        ("sampler", "Known: ", " .", SAMPLERS),
        ("memory", "parameters: ", ";", MEMORIES),
    ],
)
def test_the_help_lists_every_name_and_no_other(field, start, end, known):
    listed = explained(field).split(start)[1].split(end)[0]
    names = [name.strip() for name in re.split(r",| or ", listed)]
    assert sorted(names) == sorted(known)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_taken_as_it_stands(preset):
    """A name or an option that its parts do not have would be refused, or left out without a word."""
    assert named(preset, None, None) == PRESETS[preset]
    assert PRESETS[preset].paper


def test_the_documentation_has_a_row_for_every_preset():
    text = (ROOT / "docs" / "variance_reduction.md").read_text()
    table = text.split("| preset | sampler | memory |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines()[2:]]
    assert [name.strip("`") for name, *_ in rows] == list(PRESETS)
    for preset, (_, sampler, memory) in zip(PRESETS.values(), rows):
        assert sampler.split(",")[0] == preset.sampler
        assert memory.split(",")[0].split(" + ") == split(preset.memory)


def test_the_summary_of_a_preset_says_every_option(tmp_path):
    summary = run(config(tmp_path, preset="gas", memory_options={"dtype": "bfloat16"}, **SMALL))
    assert summary["memory_options"]["history"]["dtype"] == "bfloat16"
    assert summary["memory_options"]["history"]["mode"] == "replace"
    json.dumps(summary)
