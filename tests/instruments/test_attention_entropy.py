"""AttentionEntropy: uniform is 1, a choice is 0, and in between target by target."""

import math

import numpy as np
import pytest
import torch
from instruments import layered

from graphdyn.estimate import Invalid
from graphdyn.instruments.attention_entropy import AttentionEntropy, entropy
from graphdyn.sight import Attention, attention_of

TARGET = torch.tensor([0, 0, 0, 1, 1, 2])  # target 2 has one edge, target 3 none


def of(*heads):
    return Attention(torch.tensor(heads).T.double(), TARGET, 4)


def test_known_coefficients():
    even = [1 / 3, 1 / 3, 1 / 3, 0.5, 0.5, 1.0]
    choice = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    half = [0.5, 0.5, 0.0, 1.0, 0.0, 1.0]
    found = entropy(of(even, choice, half))
    assert found[0] == pytest.approx(1)
    assert found[1] == 0
    assert found[2] == pytest.approx(math.log(2) / math.log(3) / 2)
    assert entropy(of(half), 1)[0] == pytest.approx(math.log(2) / math.log(3))
    assert entropy(Attention(torch.ones(1, 1), torch.tensor([0]), 2)) is None
    flat = Attention(torch.tensor(even), TARGET, 4)  # one head without a dimension of its own
    assert entropy(flat)[0] == pytest.approx(1)


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_our_models(name):
    g = layered.graph()
    made = layered.model(name, dropout=0.5, edge_dropout=0.5)
    s = layered.snapshot(made, layered.node_problem(made, g, "neighbor"))
    found = AttentionEntropy().measure(s)
    trace = s.trace()
    for layer, heads in (("layer 1", 2), ("layer 3", 1)):
        alpha, target, _ = attention_of(trace.calls[layer])
        for head in range(heads):
            values = []
            for v in range(layered.N):
                p = alpha[target == v, head].double().detach().numpy()
                if p.size > 1:
                    values.append(-(p * np.log(p)).sum() / math.log(p.size))
            expected = np.mean(values)
            assert float(found["entropy", f"{layer} head {head + 1}"]) == pytest.approx(expected)
            assert 0.2 < expected < 0.9999
        each = [found["entropy", f"{layer} head {k + 1}"] for k in range(heads)]
        assert float(found["entropy", layer]) == pytest.approx(float(sum(each)) / heads)
    assert len(found) == 3 + 2 + 2 + 1


def test_attention_that_does_not_look():
    g = layered.graph()
    ours, theirs = layered.model("gat"), layered.pyg_model("GAT", heads=2, dropout=0.5)
    for conv in (*ours.convs, *theirs.convs):
        conv.att_src.data.zero_()
        conv.att_dst.data.zero_()
    for made, make in ((ours, layered.node_problem), (theirs, layered.pyg_problem)):
        found = AttentionEntropy().measure(layered.snapshot(made, make(made, g)))
        assert all(float(v) == pytest.approx(1) for v in found.values())


def test_a_graph_in_pieces():
    g = layered.graph()
    made, instrument = layered.model("gat"), AttentionEntropy()
    problem = layered.node_problem(made, g, "neighbor", chunk=7)
    found = instrument.measure(layered.snapshot(made, problem))
    assert "does not fit" in instrument.reason
    assert {k[0] for k in found} == {"entropy of a batch"}


def test_models_that_do_not_attend():
    g = layered.graph()
    for made, make in (
        (layered.model("gcn"), layered.node_problem),
        (layered.pyg_model(), layered.pyg_problem),
    ):
        with pytest.raises(Invalid, match="no layer of the model offers attention coefficients"):
            AttentionEntropy().measure(layered.snapshot(made, make(made, g)))
