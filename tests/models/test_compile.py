"""torch.compile and autocast do not break a model."""

import cases
import pytest
import torch

from graphdyn.keys import Key
from graphdyn.loss import node_loss

# The compiler itself looks at .grad of the tensors between two compiled pieces.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning"),
]


def gradient(model, forward, batch):
    loss = node_loss(forward(batch).logits, batch)
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return loss, [g for g in found if g is not None]


def compare(model, compiled):
    graph = cases.tiny()
    for step in range(2):  # the second step draws other masks from the same compiled code
        batch = cases.whole(graph, model, key=Key(0, step=step))
        (a, x), (b, y) = gradient(model, model, batch), gradient(model, compiled, batch)
        cases.close(a, b, 1e-10)
        for ours, theirs in zip(x, y):
            cases.close(ours, theirs, 1e-10)


def trained(name):
    edge = 0.0 if name in ("mlp", "sage-max") else 0.3
    options = {"dropout": 0.5, "edge_dropout": edge, "norm": "layer", "skip": "linear"}
    return cases.small_model(name, **options)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", cases.MODELS)
def test_compiled_models_give_the_same_loss_and_gradients(name):
    model = trained(name)
    compare(model, torch.compile(model, backend="eager"))


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.MODELS)
def test_inductor_gives_the_same_loss_and_gradients(name):
    model = trained(name)
    compare(model, torch.compile(model, backend="inductor"))


@pytest.mark.parametrize("norm", cases.NORMS)
@pytest.mark.parametrize("name", cases.MODELS)
def test_bfloat16_autocast_runs_and_stays_close(name, norm):
    model = cases.small_model(name, norm=norm, skip="identity", dropout=0.25).float()
    batch = cases.whole(cases.tiny(dtype=torch.float32), model)
    exact = model(batch).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch).logits
        loss = node_loss(logits, batch)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    scale = float(exact.abs().max())
    assert float((logits.detach().float() - exact).abs().max()) < 0.05 * scale + 0.02
