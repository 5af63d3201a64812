"""Is the GPU path right, and how fast is it? One short table, from the source tree, without installation.

    python benchmarks/gpu.py [--device cuda] [--nodes 200000] [--tiny]

First every model is compared with the CPU: logits and parameter gradients, dropout on, same key, so masks must be
the same bits. Then kernels and whole training epochs are timed with CUDA events; a kernel's bytes over its
time is set beside the card's own copy bandwidth, measured in the same run. Every sampler must make the plans of
the CPU with the graph on the device; sampling is timed alone, and as a part of a training step. Every method with a memory takes three steps
beside the CPU, and every instrument watches four steps without changing a bit. Needs torch,
NumPy and Numba only (and pymetis for the sampler "cluster").
"""

import argparse
import statistics
import sys
import time
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from common import save
from torch import Tensor

from graphdyn import (
    Instrument,
    Key,
    Loader,
    NodeProblem,
    Propagation,
    Recorder,
    build,
    full_batch,
    load,
    method,
    node_loss,
    samplers,
    train,
)
from graphdyn.data import power_law
from graphdyn.instruments import INSTRUMENTS
from graphdyn.kernels import dropout, edge_softmax, spmm
from graphdyn.presets import PRESETS

SAMPLED = {
    "neighbor": {"fanouts": (15, 10, 5)},
    "labor": {"fanouts": (15, 10, 5)},
    "pladies": {"nodes": (1000,)},
    "saint-node": {"budget": 1500},
}
MODELS = {
    "mlp": {},
    "sgc": {},
    "gcn": {"norm": "batch", "skip": "identity"},
    "sage": {"norm": "layer"},
    "gat": {"edge_dropout": 0.3},
    "gatv2": {},
    "gcnii": {"layers": 8},
    "appnp": {},
}


class Timer:
    """Median seconds of a piece of work: CUDA events on a GPU, the host clock elsewhere."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def __call__(self, work) -> float:
        for _ in range(2):
            work()
        return statistics.median(self._once(work) for _ in range(self.repeats))

    def _once(self, work) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            work()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000


def gradients(name, options, graph, device):
    graph = graph.to(device)
    model = build(name, graph.num_features, graph.num_classes, seed=1, **options).to(device)
    model.train()
    batch = full_batch(graph, model.propagation, key=Key(3))
    logits = model(batch).logits
    node_loss(logits, batch).backward()
    return [
        logits.detach().cpu(),
        *(p.grad.cpu() for p in model.parameters() if p.grad is not None),
    ]


def worst_difference(name, options, graph, device) -> float:
    """Largest difference between the devices over logits and gradients, relative to their size."""
    pairs = zip(gradients(name, options, graph, "cpu"), gradients(name, options, graph, device))
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1e-6)).item() for a, b in pairs)


def check(device) -> dict:
    graph = load("csbm")
    rows = {}
    for name, options in MODELS.items():
        rows[name] = worst_difference(name, options, graph, device)
        verdict = "ok" if rows[name] < 1e-3 else "WRONG"
        print(f"  {name:6} differs from the CPU by {rows[name]:.1e}  {verdict}", flush=True)
    return rows


def copy_bandwidth(timer, device) -> float:
    """Bytes a second of a device-to-device copy, read and write counted."""
    source = torch.empty(2**26 if device.type == "cuda" else 2**23, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / timer(lambda: target.copy_(source))


def kernels(timer, graph, width, peak) -> dict:
    matrix = graph.adjacency(Propagation("sym"))
    csc = matrix.csc
    n, edges, device = csc.num_dst, csc.num_edges, csc.device
    x = torch.randn(n, width, device=device)
    logits = torch.randn(edges, 8, device=device)
    cases = {
        f"spmm {width}": (lambda: spmm(matrix, x), 4 * (edges * (width + 2) + n * width)),
        "edge softmax, 8 heads": (lambda: edge_softmax(csc, logits), 4 * 2 * edges * 8),
        f"dropout {width}": (lambda: dropout(x, 0.5, 7), 4 * 2 * n * width),
    }
    rows = {}
    for name, (work, moved) in cases.items():
        seconds = timer(work)
        rows[name] = {"seconds": seconds, "share_of_copy_bandwidth": moved / seconds / peak}
        share = 100 * rows[name]["share_of_copy_bandwidth"]
        print(f"  {name:24} {1000 * seconds:9.3f} ms  {share:6.1f} % of copy bandwidth", flush=True)
    return rows


def epochs(timer, graph, hidden) -> dict:
    rows = {}
    for name, options in {"gcn": {"norm": "batch"}, "gat": {}}.items():
        options = {"hidden": hidden, "layers": 3, **options}
        model = build(name, graph.num_features, graph.num_classes, **options).to(graph.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        batch = full_batch(graph, model.propagation, key=Key(0))

        def epoch(model=model, optimizer=optimizer, batch=batch):
            optimizer.zero_grad()
            node_loss(model(batch).logits, batch).backward()
            optimizer.step()

        rows[name] = timer(epoch)
        print(f"  {name + ' epoch':24} {1000 * rows[name]:9.3f} ms", flush=True)
    return rows


def same_plans(device) -> dict:
    """Whether every sampler makes the same plans, to the bit, with the graph on the device."""
    graph, rows = load("csbm"), {}
    for name, kind in samplers.SAMPLERS.items():
        sizes = {"batch_size": 50, "nodes": (60,), "parts": 12, "budget": 80, "roots": 30}
        own = {field.name for field in fields(kind)}
        recipe = samplers.build(name, **{k: v for k, v in sizes.items() if k in own})
        both = (graph, graph.to(device))
        plans = [recipe.prepare(g, Propagation("sym"), 2) for g in both]
        keys = [*plans[0].keys(Key(5), range(2))]
        rows[name] = all(
            torch.equal(s.nan_to_num(), t.cpu().nan_to_num())
            for key in keys
            for a, b in zip(*(p.plan(key).blocks for p in plans))
            for s, t in zip(a.tensors(), b.tensors())
        )
        print(f"  {name:18} {'same plans' if rows[name] else 'OTHER PLANS'}", flush=True)
    return rows


def sampling(timer, graph, batch_size) -> dict:
    """Edges a second of plans alone, the graph on the device."""
    rows = {}
    for name, options in SAMPLED.items():
        options = {"batch_size": batch_size} | options if "budget" not in options else options
        plans = samplers.build(name, **options).prepare(graph, Propagation("mean", False), 3)
        keys = plans.keys(Key(0), range(10**6))
        edges = plans.plan(next(keys)).num_edges
        seconds = timer(lambda plans=plans, keys=keys: plans.plan(next(keys)))
        rows[name] = {"edges": edges, "seconds": seconds}
        print(
            f"  {name:18} {edges:9} edges a batch  {edges / seconds / 1e6:8.1f} M edges/s",
            flush=True,
        )
    return rows


def sampled_epoch(graph, hidden, batch_size, steps) -> dict:
    """Seconds of sampling, gathering and computing in training with neighbour sampling on the device."""
    model = build(
        "sage", graph.num_features, graph.num_classes, hidden=hidden, layers=3, norm="batch"
    )
    model.to(graph.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    sampler = samplers.build("neighbor", fanouts=(15, 10, 5), batch_size=batch_size)
    loader = Loader(sampler.prepare(graph, model.propagation, 3), graph, epochs=10**6, workers=0)
    spent = {"sample": 0.0, "gather": 0.0, "compute": 0.0}
    with loader:
        for step in islice(train(model, loader, optimizer, hidden=False), steps):
            float(step.loss)  # waits for the device, so that the parts add up
            spent["compute"] += step.seconds
    spent |= {k: loader.seconds[k] for k in ("sample", "gather")}
    print("  " + ", ".join(f"{k} {1000 * v / steps:.1f} ms a step" for k, v in spent.items()))
    return {k: v / steps for k, v in spent.items()}


def trained(name: str, device: str | torch.device) -> list[Tensor]:
    """Parameters and tables after three steps of a preset on a small graph, back on the CPU."""
    graph = load("csbm").to(device)
    model = build("gcn", graph.num_features, graph.num_classes, hidden=16, head="linear", seed=1)
    model.to(device)
    recipe = method(name)
    if hasattr(recipe.sampler, "batch_size"):
        recipe = replace(recipe, sampler=replace(recipe.sampler, batch_size=40))
    plans, memory = recipe.prepare(model, graph)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    memory.start()
    batches = islice(Loader(plans, graph, epochs=3, workers=0), 3)
    for _ in train(model, batches, optimizer, memory=memory):
        pass
    tables = (t.double() for t in memory.state().values())
    return [t.detach().cpu() for t in (*model.parameters(), *tables)]


def presets(device) -> dict[str, float]:
    """Worst relative difference to the CPU of what each method has learned and remembers."""
    worst = {}
    for name in PRESETS:
        pairs = zip(trained(name, "cpu"), trained(name, device), strict=True)
        worst[name] = max(float((a - b).norm() / a.norm().clamp(min=1e-6)) for a, b in pairs)
        print(f"  {name:<18} {worst[name]:.1e}")
    return worst


def instruments(device) -> dict[str, bool]:
    """Whether each instrument works on the device and leaves training as it is, to the bit."""
    found, plain = {}, watched(None, device)
    for name, kind in INSTRUMENTS.items():
        instrument = kind(0.5) if name == "time_to_target" else kind(every=1)
        found[name] = all(torch.equal(a, b) for a, b in zip(plain, watched(instrument, device)))
        print(f"  {name:<18} {'changes nothing' if found[name] else 'CHANGES TRAINING'}")
    return found


def watched(instrument: Instrument | None, device) -> list[Tensor]:
    """Parameters and buffers after four steps, one instrument measuring at each."""
    graph = load("csbm").to(device)
    model = build("gcn", graph.num_features, graph.num_classes, hidden=16, norm="batch", seed=1)
    model.to(device)
    plans, memory = method("vr-gcn", batch_size=40).prepare(model, graph)
    memory.start()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    problem = NodeProblem(model, graph, plans, memory=memory)
    recorder = Recorder(
        model, optimizer, [instrument] if instrument else [], problem=problem, deferred=True
    )
    with recorder:
        recorder.settle()
        for step in islice(
            train(model, Loader(plans, graph, epochs=9), optimizer, memory=memory), 4
        ):
            recorder.note(step.loss)
            recorder.settle()
    return [*model.parameters(), *model.buffers()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nodes", type=int, default=200_000)
    parser.add_argument("--tiny", action="store_true", help="a small graph: does it run?")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: no CUDA device here; use --device cpu to try the script.", file=sys.stderr)
        return 2
    nodes, repeats, hidden = (2000, 2, 32) if options.tiny else (options.nodes, 20, 256)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}\nagainst the CPU:")
    results: dict = {"device": name, "difference": check(device)}
    print("methods with memories, against the CPU:")
    results["presets"] = presets(device)
    print("instruments, measuring at every step:")
    results["instruments"] = instruments(device)
    graph = power_law(
        nodes,
        avg_degree=24,
        num_features=128,
        num_classes=40,
        split="random-0.5-0.25-0.25",
        key=Key(0),
    ).to(device)
    timer = Timer(device, repeats)
    peak = results["copy_bytes_per_second"] = copy_bandwidth(timer, device)
    print(f"{graph}\n  copy bandwidth {peak / 1e9:.0f} GB/s")
    results["kernels"] = kernels(timer, graph, hidden, peak)
    results["epoch_seconds"] = epochs(timer, graph, hidden)
    batch_size, steps = (256, 3) if options.tiny else (1024, 50)
    results["same_plans"] = same_plans(device)
    results["sampling"] = sampling(timer, graph, batch_size)
    results["sampled_step_seconds"] = sampled_epoch(graph, hidden, batch_size, steps)
    if not options.tiny:
        print(save(f"gpu-{device.type}", results))
    differences = (*results["difference"].values(), *results["presets"].values())
    wrong = any(value >= 1e-3 for value in differences)
    untouched = all(results["instruments"].values())
    return int(wrong or not all(results["same_plans"].values()) or not untouched)


if __name__ == "__main__":
    sys.exit(main())
