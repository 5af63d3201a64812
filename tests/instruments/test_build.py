"""Instruments by name: presets, options as text, and one sentence where something does not fit."""

import pytest

import graphdyn as gd
from graphdyn.instruments import INSTRUMENTS, PRESETS


def test_each_counts_once_and_presets_are_made_of_names():
    names = [i.name for i in gd.build_instruments("light+fdt+standard")]
    assert len(names) == len(set(names))
    assert set(PRESETS["light"]) <= set(PRESETS["standard"]) == set(names)
    assert {n for members in PRESETS.values() for n in members} <= set(INSTRUMENTS)


def test_light_takes_no_gradient_of_its_own():
    for instrument in gd.build_instruments("light"):
        assert not instrument.needs & (gd.Need.PROBLEM | gd.Need.MICRO), instrument.name


def test_options_are_read_as_text():
    first, second = gd.build_instruments(
        "sampler_mse+time_to_target", {"sampler_mse.m": "5", "time_to_target.targets": "0.8"}
    )
    assert first.option("m") == 5
    assert first.option("k") == 2
    assert second.targets == (0.8,)


@pytest.mark.parametrize("name", [n for n, kind in INSTRUMENTS.items() if kind.levels])
def test_members_of_levels_are_options(name):
    for member, value in INSTRUMENTS[name].levels[0].items():
        other = value + 1 if isinstance(value, int) else "batch"
        (held,) = gd.build_instruments(name, {f"{name}.{member}": str(other)})
        (left,) = gd.build_instruments(name, {f"{name}.{member}": None})
        assert held.fixed == {member: other}
        assert left.option(member) == value


def test_what_leaves_it_open_measures_every_so_many_steps():
    found = {i.name: i for i in gd.build_instruments("fdt+sampler_audit", every=7)}
    assert found["fdt"].every == gd.Every(7)
    assert isinstance(found["sampler_audit"].every, gd.At)


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ("ftd", {}, "unknown instrument 'ftd'; did you mean fdt"),
        ("fdt", {"light.m": 3}, "unknown instrument with options 'light'"),
        ("sampler_mse", {"sampler_mse.n": 3}, "unknown option of the instrument sampler_mse 'n'"),
        ("sampler_mse", {"sampler_mse.m": "many"}, "m is 'many'; expected int"),
        ("norm_gap", {"norm_gap.m": "many"}, "m is 'many'; expected int"),
        ("norm_gap", {"norm_gap.n": 3}, "unknown option of the instrument norm_gap 'n'"),
        ("norm_gap", {"norm_gap.every": "often"}, "every is 'often'; expected a number of steps"),
        ("time_to_target", {}, "the instrument time_to_target needs targets"),
    ],
)
def test_what_does_not_fit_is_one_sentence(names, options, says):
    with pytest.raises(gd.InputError, match=says):
        gd.build_instruments(names, options)
