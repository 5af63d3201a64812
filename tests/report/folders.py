"""Run folders as they lie there in the middle of a run: real records and checkpoints, and nothing is trained."""

import torch

from graphdyn.config import Config
from graphdyn.evaluation import Scores
from graphdyn.journal import Event, Metric
from graphdyn.record import Record
from graphdyn.seed_state import SeedState

STEPS = 5  # an epoch
RATES = (0.30, 0.50, 0.70, 0.65)  # validation by epoch; the third is the best


def opened(folder, **changes):
    """A record that this process has open."""
    given = {"dataset": "cora", "model": "gcn", "sampler": "neighbor", "epochs": 10, "seeds": 4}
    return Record.open(Config(**{**given, **changes}, out=folder))


def epochs(record, seed=0, rates=RATES, instruments=True):
    """Rows of some epochs; returns how far the seed is then."""
    at = SeedState(seed)
    for epoch, rate in enumerate(rates, start=1):
        for _ in range(STEPS):
            at.step += 1
            at.edges, at.bytes = at.edges + 1000, at.bytes + 5000
            record.add(at.clock, Metric("loss", "step", 2.0 / at.step))
        at.epoch = epoch
        record.add(at.clock, Metric("lr", "all", 0.01))
        scores = {"train": 0.9, "valid": rate, "test": rate + 0.111}
        for part, value in scores.items():
            record.add(at.clock, Metric("loss", part, 1 - value))
            record.add(at.clock, Metric("accuracy", part, value))
        at.selection.offer(epoch, at.step, rate, Scores(scores, {}))
        if instruments:
            measure(record, at.clock, epoch)
    at.seconds |= {"precompute": 1.0, "compute": 6.0, "wait": 2.0, "evaluate": 1.0, "total": 10.0}
    at.seconds |= {"sample": 3.0, "gather": 0.5}
    return at


def measure(record, clock, epoch):
    """Numbers with and without an error; three predictions that hold and one that does not."""
    for layer in ("layer 1", "layer 2"):
        record.add(clock, Metric("smoothness.rw", layer, float(layer[-1])))
    record.add(clock, Metric("noise_scale.in_batches", "all", 7.0))
    record.add(clock, Metric("noise_scale.noise_scale", "all", 40.0 + epoch, 2.5, n=8))
    record.add(clock, Metric("update_ratio.ratio", "all", 0.001 * epoch))
    record.add(clock, Metric("effective_lr.norm", "convs.0", 3.0, pred=3.0))
    record.add(
        clock, Metric("effective_lr.effective_lr", "convs.0", 0.0101 * epoch, pred=0.01 * epoch)
    )
    for group, off in (("all", 1.0), ("convs.1", 2.0)):
        record.add(clock, Metric("fdt.ratio", group, off, pred=1.0))
    record.add(clock, Event("rate_fit invalid", f"{epoch} losses were noted; a fit takes 16."))


def result(seed, valid, seconds=20.0):
    """Of a seed that is done."""
    ledger = dict.fromkeys(SeedState(0).seconds, 0.0) | {"compute": seconds / 2, "total": seconds}
    scores = {"train": 0.9, "valid": valid, "test": valid - 0.05}
    counts = {"steps": 50, "edges": 50_000, "bytes": 250_000, "epochs": 10}
    return {"seed": seed, "metric": scores, "seconds": ledger, **counts}


def checkpoint(record, at=None, results=(), spent=0.5):
    """As the runner writes them."""
    state = {"results": list(results), "ranks": 1}
    if at is not None:
        budget = {"trained": 8.0, "spent": spent, "steps": at.step}
        state["seed"] = {"at": at.plain(), "instruments": {"budget": budget}}
    record.save({"model/w": torch.zeros(3)}, state)


def summary(seeds=(0, 1), valid=(0.71, 0.73), total=80.0):
    """What completes a run."""
    mean = sum(valid) / len(valid)
    std = 0.0141 if len(valid) > 1 else None
    spread = {"mean": mean, "std": std, "n": len(valid), "values": list(valid)}
    ledger = dict.fromkeys(SeedState(0).seconds, 0.0) | {"compute": total / 2, "total": total}
    counts = {name: [7] * len(seeds) for name in ("steps", "edges", "bytes")}
    scores = {"validation": spread, "test": spread}
    return {"seeds": list(seeds), **scores, "seconds": ledger, **counts}
