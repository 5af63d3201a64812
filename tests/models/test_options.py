"""What can be built, from which seed, and what is refused in words."""

import cases
import pytest
import torch

from graphdyn import models
from graphdyn.errors import InputError


@pytest.mark.parametrize("name", cases.MODELS)
def test_parameters_are_a_function_of_the_seed_and_the_global_generator_is_left_alone(name):
    before = torch.get_rng_state()
    first, again, other = (
        cases.small_model(name, norm="batch", skip="linear", seed=seed) for seed in (1, 1, 2)
    )
    graph = cases.tiny(dtype=torch.float64)
    batch = cases.whole(graph, first)
    first(batch).logits.sum().backward()
    assert torch.equal(before, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters())]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


def test_another_layer_leaves_the_first_layers_parameters_as_they_were():
    short, long = cases.small_model("gcn", layers=2), cases.small_model("gcn", layers=5)
    assert torch.equal(short.convs[0].lin.weight, long.convs[0].lin.weight)
    assert not torch.equal(long.convs[1].lin.weight, long.convs[2].lin.weight)


def test_gcn_weights_are_glorot_and_biases_zero():
    model = models.GCN(300, 7, hidden=100)
    weight = model.convs[0].lin.weight.detach()
    bound = (6 / 400) ** 0.5
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not model.convs[0].lin.bias.any()


def test_reset_parameters_restores_the_initial_values():
    lin = models.GCN(8, 3).convs[0].lin
    before = lin.weight.detach().clone()
    lin.weight.data.zero_()
    lin.reset_parameters()
    assert torch.equal(lin.weight, before)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_parameter_groups_hold_every_parameter_once(name, norm):
    for skip in ("none", "linear"):
        model = cases.small_model(name, norm=norm, skip=skip)
        groups = model.parameter_groups()
        assert list(groups) == ["first", "hidden", "norm", "out"]
        grouped = [id(p) for group in groups.values() for p in group]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters())
        assert bool(groups["norm"]) == (norm == "batch")


def test_groups_express_the_weight_decays_of_kipf_and_of_gcnii():
    gcn = models.GCN(8, 3)
    assert gcn.parameter_groups()["first"][0] is gcn.convs[0].lin.weight
    assert gcn.parameter_groups()["out"][0] is gcn.convs[1].lin.weight
    deep = models.GCNII(8, 3, layers=4)
    groups = deep.parameter_groups()
    assert {id(p) for p in groups["hidden"]} == {id(p) for p in deep.convs.parameters()}
    assert len(groups["first"]) == len(groups["out"]) == 2
    assert models.SGC(8, 3).parameter_groups()["out"] == []


@pytest.mark.parametrize("name", models.MODELS)
def test_listed_defaults_are_the_ones_that_build_uses(name):
    listed = models.model_options(name)
    model = models.build(name, 8, 3)
    used = vars(model.options)
    assert {k: v for k, v in listed.items() if k in used} == used
    rebuilt = models.build(name, 8, 3, **listed)
    assert [p.shape for p in rebuilt.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gnc", {}, "did you mean sgc or gcn"),
        ("gcn", {"hiden": 3}, "did you mean hidden"),
        ("gcn", {"norm": "bach"}, "did you mean batch"),
        ("gcn", {"skip": "dense"}, "did you mean"),
        ("gcn", {"order": "before"}, "known: post, pre"),
        ("gcn", {"activation": "rel"}, "did you mean relu"),
        ("gcn", {"head": "mlp"}, "known: auto, conv, linear"),
        ("gcn", {"layers": 0}, "layers is 0"),
        ("gcn", {"hidden": 1.5}, "hidden is 1.5"),
        ("gcn", {"dropout": 1.0}, "dropout is 1.0"),
        ("gcn", {"input_dropout": -0.1}, "input_dropout is -0.1"),
        ("gcn", {"edge_dropout": 2}, "edge_dropout is 2"),
        ("gcn", {"skip_alpha": 1.5}, "skip_alpha is 1.5"),
        ("gcn", {"skip": "dense-cat", "head": "conv"}, "use head='linear'"),
        ("mlp", {"edge_dropout": 0.5}, "no edges"),
        ("sgc", {"hops": 0}, "hops is 0"),
        ("sage", {"aggregator": "median"}, "did you mean mean"),
        ("sage", {"aggregator": "max", "edge_dropout": 0.5}, "use 0, or the aggregator"),
        ("gat", {"hidden": 10, "heads": 4}, "not a multiple of heads=4"),
        ("gat", {"heads": 0}, "heads is 0"),
        ("gatv2", {"out_heads": -1}, "out_heads is -1"),
        ("gcnii", {"head": "conv"}, "use head='linear'"),
        ("gcnii", {"skip": "initial"}, "initial residual of its own"),
        ("gcnii", {"theta": 0.0}, "theta is 0.0"),
        ("gcnii", {"alpha": 1.0}, "alpha is 1.0"),
        ("appnp", {"alpha": -1.0}, "alpha is -1.0"),
        ("appnp", {"hops": 0}, "hops is 0"),
    ],
)
def test_bad_options_are_refused_in_words(name, options, words):
    with pytest.raises(InputError, match=words):
        models.build(name, 8, 3, **options)


def test_without_bias_no_layer_adds_a_constant():
    for name in cases.MODELS:
        model = cases.small_model(name, bias=False, norm="none")
        assert not [n for n, _ in model.named_parameters() if n.endswith("bias")]
        graph = cases.tiny()
        object.__setattr__(graph, "x", torch.zeros_like(graph.x))
        assert not model(cases.whole(graph, model)).logits.any()


def test_an_mlp_needs_no_blocks():
    from dataclasses import replace

    model = cases.small_model("mlp", dropout=0.5)
    batch = cases.whole(cases.tiny(), model)
    assert torch.equal(model(replace(batch, blocks=())).logits, model(batch).logits)


def test_the_automatic_head_is_linear_where_order_or_skip_need_it():
    assert cases.small_model("gcn").head is None
    assert cases.small_model("gcn", skip="identity").head is None
    for options in ({"order": "pre"}, {"skip": "dense-cat"}, {"skip": "dense-max"}):
        assert cases.small_model("gcn", **options).head is not None
    assert cases.small_model("gcn", order="pre", head="conv").head is None
