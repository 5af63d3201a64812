"""Do skip connections, depth and good labels make graph networks train faster, as theory says? See README.md.

python experiments/gnn_speed/run.py [--only theorem speed relu] [--tiny] [--out runs/gnn_speed]
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flow import ARCHITECTURES, SHIFTS, Flow, GraphNet, LinearNet, Task, descend
from report import claims, draw, table
from theorem import DEPTHS, alignment, conditions, settings

import graphdyn as gd
from graphdyn.survival import first_hit

DATASETS = ("cora", "citeseer")
HIDDEN, SHARE = 32, 0.05  # of the stability limit
LEVELS = (0.9, 0.5, 0.2)  # of the loss of a network that says 0
STARTS = ("zero head", "glorot")
STEPS = {"theorem": 150, "speed": 400, "relu": 300}


def speed(task: Task, arch: str, depth: int, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Linear networks: both initial heads, all seeds, true and shuffled labels, side by side."""
    kinds = [*product(STARTS, range(seeds), ("true", "shuffled"))]
    models = [_started(task.model(arch, depth, HIDDEN, s, "none"), start) for start, s, _ in kinds]
    features = [task.features_head(s) * (start == "glorot") for start, s, _ in kinds]
    y = torch.stack([task.labels(kind) for *_, kind in kinds])
    flow = descend(LinearNet(task, arch, models, features), y, steps, SHARE)
    return [
        {
            "activation": "none",
            "arch": arch,
            "depth": depth,
            "start": start,
            "seed": s,
            "labels": kind,
        }
        | _readings(flow, r)
        for r, (start, s, kind) in enumerate(kinds)
    ]


def relu(task: Task, arch: str, depth: int, steps: int) -> dict[str, Any]:
    """The ReLU network of the same initial weights, seed 0, true labels, zero head."""
    model = _started(task.model(arch, depth, HIDDEN, 0, "relu"), "zero head")
    net = GraphNet(task, arch, model, 0 * task.features_head(0))
    flow = descend(net, task.y[None], steps, SHARE)
    what = {"activation": "relu", "arch": arch, "depth": depth, "start": "zero head", "seed": 0}
    return what | {"labels": "true"} | _readings(flow, 0)


def agreement(task: Task, depth: int) -> float:
    """Largest relative deviation of the closed form from graphdyn's models on the whole graph."""
    found = []
    for arch in ARCHITECTURES:
        model, features = task.model(arch, depth, HIDDEN, 0, "none"), task.features_head(0)
        with torch.no_grad():
            closed = LinearNet(task, arch, [model], [features])()
            whole = GraphNet(task, arch, model, features)()
        found.append(float((closed - whole).abs().max() / whole.abs().max()))
    return max(found)


def _started(model: Any, start: str) -> Any:
    if start == "zero head":
        torch.nn.init.zeros_(model.head.weight)
    return model


def _readings(flow: Flow, r: int) -> dict[str, Any]:
    """Hits by level, in flow time and in steps; who did the work; a thinned curve."""
    times, losses = flow.time[:, r], flow.loss[:, r]
    steps = range(len(losses))
    hits = {
        f"{level:g}": {
            clock: first_hit(at, losses, level, window=1, larger=False)
            for clock, at in (("time", times), ("steps", steps))
        }
        for level in LEVELS
    }
    kept = np.unique(np.geomspace(1, len(losses), 40).astype(int)) - 1
    return {
        "hits": hits,
        "first_term": float(flow.first_term(len(losses) - 1)[r]),
        "identity": float(flow.error[r]),
        "curve": [[float(f"{v:.4g}") for v in values[kept]] for values in (times, losses)],
    }


def measure(name: str, shift: str, parts: list[str], tiny: bool) -> dict[str, Any]:
    """Everything about one data set under one shift."""
    graph, start = gd.load(name), time.perf_counter()
    task, where = Task.of(graph, shift, 2 if tiny else 8), {"dataset": name, "shift": shift}
    depths, few, steps, seeds = (1, 2, 4, 6), DEPTHS, STEPS, 3
    if tiny:
        depths, few, steps, seeds = (1, 2), (1, 2), dict.fromkeys(STEPS, 6), 1
    found: dict[str, Any] = {"conditions": {}, "alignment": {}, "settings": [], "speed": []}
    if "theorem" in parts:
        rows = Task.of(gd.row_normalize(graph), shift, 2)
        found["conditions"] = {
            f"{name}/{shift}": conditions(task),
            f"{name}/{shift}/row": conditions(rows),
        }
        found["alignment"] = {f"{name}/{shift}": alignment(task)}
        for arch, depth in product(("plain", "dense"), few):
            found["settings"] += [where | r for r in settings(task, depth, arch, steps["theorem"])]
    for arch, depth in product(ARCHITECTURES, depths):
        if "speed" in parts:
            found["speed"] += [where | r for r in speed(task, arch, depth, steps["speed"], seeds)]
        if "relu" in parts and depth in few:
            found["speed"].append(where | relu(task, arch, depth, steps["relu"]))
    found["agreement"] = {f"{name}/{shift}": agreement(task, depths[-1])}
    found["seconds"] = {f"{name}/{shift}": round(time.perf_counter() - start, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("theorem", "speed", "relu")
    parser.add_argument("--only", nargs="*", choices=parts, default=list(parts))
    parser.add_argument(
        "--tiny", action="store_true", help="a few steps of one data set and shift: does it run?"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gnn_speed"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name, shift in [*product(DATASETS, SHIFTS)][: 1 if options.tiny else None]:
        for part, found in measure(name, shift, options.only, options.tiny).items():
            if isinstance(found, list):
                results.setdefault(part, []).extend(found)
            else:
                results.setdefault(part, {}).update(found)
        print(f"{name} {shift}: {results['seconds'][f'{name}/{shift}']} s", flush=True)
        (options.out / "results.json").write_text(json.dumps(results) + "\n")
    print(table(claims(results)))
    draw(results, options.out / "curves.png")


if __name__ == "__main__":
    main()
