"""looking: whatever a memory is asked, it knows nothing of it afterwards; every memory, at every step."""

import cases
import pytest
import torch

import graphdyn as gd
from graphdyn.keys import Key
from graphdyn.loader import gather
from graphdyn.memories import MEMORIES
from graphdyn.memories.looking import looking
from graphdyn.presets import PRESETS, split
from graphdyn.samplers import SAMPLERS
from graphdyn.step import gradient_of_step, update

# Under every preset that has a memory, which are all memories.
NAMES = [name for name, preset in PRESETS.items() if preset.memory]
PARTS = {"parts": 4, "parts_per_batch": 2}


def tiny(sampler):
    """Options that fit twelve nodes."""
    kind = SAMPLERS[sampler]
    wanted = {"batch_size": 3, "fanouts": 2, **PARTS}
    return {name: value for name, value in wanted.items() if hasattr(kind, name)}


def test_every_one_is_looked_at():
    assert {m for name in NAMES for m in split(PRESETS[name].memory)} == set(MEMORIES)


def start(preset):
    graph = cases.tiny("undirected", dtype=torch.float32)
    model = gd.build("gcn", graph.num_features, graph.num_classes, hidden=4, layers=2, seed=1)
    plans, memory = gd.method(preset, **tiny(PRESETS[preset].sampler)).prepare(model, graph)
    memory.start()
    return graph, model, plans, memory


def frozen(value, seen=None):
    """A picture of anything, by value; tensors as lists."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.detach().tolist()
    if isinstance(value, dict):
        return {str(k): frozen(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(v) for v in value]
    if type(value).__module__.startswith("graphdyn.memories."):
        return {k: frozen(v) for k, v in vars(value).items()}
    return value if isinstance(value, (int, float, str, bool, type(None))) else id(value)


def picture(memory, model):
    """State, report and every attribute of it and of its members; and of the model."""
    members = getattr(memory, "members", (memory,))
    own = [frozen(vars(m)) for m in (memory, *members)]
    return own, frozen(memory.state()), [p.tolist() for p in model.parameters()]


@pytest.mark.parametrize("preset", NAMES)
def test_a_memory_knows_nothing_of_it(preset):
    graph, model, plans, memory = start(preset)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2 * plans.num_batches + 1):
        key = Key(0).at(epoch=step // plans.num_batches, step=step)
        other = gather(plans.plan(key.fold("other")), graph.x, graph.y)
        before = picture(memory, model)
        with looking(memory):
            gradient_of_step(model, other, memory=memory)
        assert picture(memory, model) == before
        with pytest.raises(KeyboardInterrupt), looking(memory):
            memory.pull(other)
            raise KeyboardInterrupt
        assert picture(memory, model) == before
        update(model, gather(plans.plan(key), graph.x, graph.y), optimizer, memory=memory)


def test_what_is_taken_twice_is_the_same():
    """So a look has no part in the next one either."""
    for preset in ("vr-gcn", "svrg", "spider"):
        graph, model, plans, memory = start(preset)
        batch = gather(plans.plan(Key(0)), graph.x, graph.y)
        found = []
        for _ in range(2):
            with looking(memory):
                taken = gradient_of_step(model, batch, memory=memory)
            found.append({n: g.clone() for n, g in taken.items()})
        assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])
