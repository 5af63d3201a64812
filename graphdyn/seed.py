"""One seed of a run: model, sampler, optimiser, schedule, and how far they have come."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphdyn.assembly import instruments_of, method_of, model_of, regularizer_of
from graphdyn.batch import full_batch
from graphdyn.checkpoint import below, pack_optimizer, prefixed, unpack_optimizer
from graphdyn.config import Config
from graphdyn.costs import bytes_gathered, edges_touched
from graphdyn.errors import GraphdynError, InputError, Interrupted, RankLost
from graphdyn.evaluation import Scores, evaluate, reestimate
from graphdyn.fit import check_fit
from graphdyn.graph import Graph
from graphdyn.instrumented import Instrumented
from graphdyn.journal import Clock, Metric
from graphdyn.keys import Key
from graphdyn.limits import Limits
from graphdyn.loader import SECONDS, Loader
from graphdyn.machine import Stop, check_memory
from graphdyn.memories import Setting
from graphdyn.models.norms import synchronise
from graphdyn.node_problem import NodeProblem
from graphdyn.optim import advance, build_optimizer, build_schedule
from graphdyn.parallel import World
from graphdyn.presets import Method
from graphdyn.progress import Progress
from graphdyn.record import Record
from graphdyn.regularizers import Objective
from graphdyn.samplers import Full, Plans
from graphdyn.samplers.inclusion import with_node_prob
from graphdyn.seed_state import SeedState
from graphdyn.step import PLAIN, Step, train
from graphdyn.whole import Whole

_MICRO = 1_000_000


class Seed:
    """One seed of a configuration.

    Args:
        config: Of the run.
        graph: Under the split of this seed, on the device of the run.
        seed: Its number.
        world: Who trains together. All ranks take the same decisions; rank 0 alone evaluates and writes.
    """

    def __init__(self, config: Config, graph: Graph, seed: int, world: World = World()) -> None:
        start = time.perf_counter()
        self.config, self.graph, self.world = config, graph, world
        self.model = model_of(config, graph, seed)
        if self.model.num_hops and not graph.num_edges:
            raise InputError(
                f"{config.dataset} has no edges, so {config.model} has no messages to pass; use mlp."
            )
        self.model.to(graph.device)
        synchronise(self.model, world)
        self.method = method_of(config, graph, world)
        check_fit(self.method.sampler, self.model)
        self.method.check(self.model, world)
        check_memory(self.method.declare(self.model, graph), graph.device)
        self.optimizer = build_optimizer(
            self.model,
            config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            weight_decay_for=config.weight_decay_for,
            **config.optimizer_options,
        )
        self.schedule = build_schedule(self.optimizer, config.schedule, **config.schedule_options)
        self.full = full_batch(graph, self.model.propagation, key=Key(seed))
        self.plans = self._prepare(self.method, Key(seed))
        setting = Setting(
            self.model, graph, self.plans, Key(seed), precision=config.precision, world=world
        )
        self.memory = self.method.bind(setting)
        self.objective = self._objective(setting)
        self.at = SeedState(seed)
        self.limits = Limits.of(config, self.plans.num_batches)
        self.instruments = Instrumented(
            self.model,
            self.optimizer,
            instruments_of(config),
            self._problem,
            budget=config.budget,
            seed=seed,
            clock=lambda: self.at.clock,
            world=world,
        )
        self.at.seconds["precompute"] = self.at.seconds["total"] = time.perf_counter() - start
        self.best: dict[str, Tensor] = {}
        self.losses: list[tuple[Clock, dict[str, Tensor]]] = []
        self.stop, self.stopping = Stop(), False

    def _prepare(self, method: Method, key: Key, nodes: Tensor | None = None) -> Plans:
        graph, model = self.graph, self.model
        plans = method.wrapped.prepare(
            graph, model.propagation, model.num_hops, nodes=nodes, key=key, world=self.world
        )
        if self.config.norm != "weighted-batch" or plans.ready:
            return plans
        return with_node_prob(plans, graph.num_nodes, key=key.fold("node_prob"))

    def _objective(self, setting: Setting) -> Objective:
        recipe = regularizer_of(self.config)
        if recipe is None:
            return PLAIN
        recipe.check(self.model, self.method, self.graph, self.world)

        def prepare(nodes: Tensor) -> Plans:
            return self._prepare(self.method.at_most(nodes.numel()), setting.key, nodes)

        return recipe.bind(setting, self.memory, self.method, prepare)

    def _problem(self) -> NodeProblem:
        config = self.config
        return NodeProblem(
            self.model,
            self.graph,
            self.plans,
            memory=self.memory,
            objective=self.objective,
            epoch=lambda: self.at.epoch,
            precision=config.precision,
            chunk=config.evaluate_chunk,
        )

    @property
    def statistics(self) -> Literal["running", "population"]:
        """What batch norms of this run use in evaluation."""
        if self.config.statistics != "auto":
            return self.config.statistics
        sampled = not isinstance(self.method.sampler, Full)
        has_norm = any(isinstance(m, nn.BatchNorm1d) for m in self.model.modules())
        return "population" if sampled and has_norm else "running"

    def train(
        self, record: Record, results: list[dict[str, Any]], stop: Stop, bar: Progress
    ) -> dict[str, Any]:
        """To the first limit, or until patience runs out; returns the seed's result."""
        self.began = time.perf_counter() - self.at.seconds["total"]
        self.world.check_same(self.model.state_dict().values(), "the first weights")
        whole = Whole(self.model, self.optimizer, self.world)
        try:
            self._train(record, results, stop, bar, whole)
        except RankLost as error:
            raise self._lost(error, record, results, whole) from None
        finally:
            self.instruments.close()
        if self.world.leads:
            record.save_weights(self.at.seed, self.weights())
        return self.result()

    def _train(
        self,
        record: Record,
        results: list[dict[str, Any]],
        stop: Stop,
        bar: Progress,
        whole: Whole,
    ) -> None:
        config, at, self.stop = self.config, self.at, stop
        saved = time.monotonic()
        if not at.step:
            self._start()
        self.instruments.begin(record)
        with Loader(
            self.plans,
            self.graph,
            key=Key(at.seed),
            epochs=self.limits.epochs,
            first=at.step,
            workers=config.workers,
            prefetch=config.prefetch,
        ) as loader:
            steps = self.steps(loader)
            whole.mark()
            while not self.finished:
                self.step(next(steps))
                if at.step % self.plans.num_batches == 0:
                    self.end_epoch(record)
                elif self.limits.due(at):
                    self.evaluate(record)
                done = len(results) * self.limits.total + self.limits.done(at)
                bar.update(done, self.note)
                late = time.monotonic() - saved >= config.checkpoint_seconds
                if self.stopping or (late and not self.finished):
                    record.save(*self.checkpoint(record, results))
                    saved = time.monotonic()
                if self.stopping:
                    raise self.world.alike(Interrupted(f"stopped at {self.place} from there."))
                whole.mark()

    @property
    def place(self) -> str:
        """Where the seed stands, and what to do about it."""
        at = self.at
        return f"seed {at.seed}, epoch {at.epoch}, step {at.step}; the same command goes on"

    def _lost(
        self, error: RankLost, record: Record, results: list[dict[str, Any]], whole: Whole
    ) -> RankLost:
        """What to say when a rank is lost; a checkpoint of the last whole step, where it is at hand."""
        # A GPU may wait for ever for its part of an exchange; tables may hold half of what was pushed.
        if whole.holds and self.graph.device.type == "cpu" and not self.memory.state():
            whole.restore()
            record.save(*self.checkpoint(record, results))
            then = "from there"
        else:
            then = "from the last checkpoint"
        end = RankLost(f"{str(error).rstrip('.')} at {self.place} {then}.")
        end.told = error.told
        return end

    def _start(self) -> None:
        start = time.perf_counter()
        self.model.train()
        self.memory.start()
        self.at.seconds["memory"] += time.perf_counter() - start

    @property
    def finished(self) -> bool:
        """Whether the seed has used up its budget, or its patience."""
        patience = self.config.patience
        out_of_patience = patience is not None and self.at.selection.waited >= patience
        return out_of_patience or self.limits.reached(self.at)

    @property
    def note(self) -> str:
        """One line for the progress bar."""
        best = self.at.selection
        shown = f"valid {100 * best.metric['valid']:.2f}" if "valid" in best.metric else ""
        return f"seed {self.at.seed}  best epoch {best.epoch}  {shown}"

    def steps(self, loader: Loader) -> Iterator[Step]:
        """The training loop from where the seed stands; what waits and samples is the loader's time."""
        before = {name: self.at.seconds[name] for name in SECONDS}
        measured, own, used = self.instruments.seconds, self.objective.spent, 0.0
        config = self.config
        for step in train(
            self.model,
            loader,
            self.optimizer,
            memory=self.memory,
            objective=self.objective,
            precision=config.precision,
            hidden=False,
            first=self.at.step,
            world=self.world,
        ):
            for name, value in loader.seconds.items():
                self.at.seconds[name] = before[name] + value + own.seconds.get(name, 0.0)
            # What is measured between two steps is not part of one, nor what an objective waits for.
            inside = self.instruments.seconds - measured + own.seconds["wait"] - used
            yield replace(step, seconds=step.seconds - inside)
            measured, used = self.instruments.seconds, own.seconds["wait"]

    def step(self, step: Step) -> None:
        """Account for a step that just happened, and agree on whether it was the last."""
        at = self.at
        at.step = step.index + 1
        at.epoch = at.step // self.plans.num_batches
        at.seconds["compute"] += step.seconds
        at.seconds["memory"] += step.memory_seconds
        beside = self.objective.spent.take()
        runs = self.objective.runs(step.batch)
        counts = self.world.sum(
            beside.edges + (edges_touched(step.batch, self.model.num_hops) if runs else 0),
            beside.nodes + step.batch.x.shape[0],
            beside.bytes + bytes_gathered(step.batch.x),
            # One clock decides for all ranks; whole numbers survive the exchange.
            round(at.clock.seconds * _MICRO) if self.world.leads else 0,
            int(self.stop.requested),
        )
        at.edges += counts[0]
        at.nodes += counts[1]
        at.bytes += counts[2]
        at.trained = counts[3] / _MICRO
        parts = step.parts if len(self.objective.names) > 1 else {}
        self.losses.append(
            (at.clock, {"loss": step.loss} | {f"loss_{n}": v for n, v in parts.items()})
        )
        self.instruments.step(step.loss)
        self.stopping = counts[4] > 0

    def end_epoch(self, record: Record) -> None:
        """Record the epoch, evaluate when it is due, and step the schedule."""
        at = self.at
        self.flush(record)
        record.add(at.clock, Metric("lr", "all", self.optimizer.param_groups[0]["lr"]))
        for name, value in self.memory.report().items():
            record.add(at.clock, Metric(name, "memory", value))
        mean = at.loss / self.plans.num_batches
        advance(self.schedule, self.evaluate(record) if self.limits.due(at) else mean)
        self.instruments.end_epoch()
        at.loss = 0.0
        self.world.check_same(self.model.state_dict().values(), "the weights")

    def flush(self, record: Record) -> None:
        """Record the losses of the steps since the last time; one wait for the device serves all."""
        if not self.losses:
            return
        start = time.perf_counter()
        values = iter(torch.stack([v for _, own in self.losses for v in own.values()]).tolist())
        self.at.seconds["compute"] += time.perf_counter() - start
        for clock, own in self.losses:
            found = {name: next(values) for name in own}
            loss = found["loss"]
            if not math.isfinite(loss):
                epoch = -(-clock.step // self.plans.num_batches)
                text = f"the training loss became {loss} at seed {clock.seed}, epoch {epoch}"
                raise self.world.alike(GraphdynError(f"{text}; lower --lr."))
            for name, value in found.items():
                record.add(clock, Metric(name, "step", value))
            self.at.loss += loss
        self.losses.clear()

    def evaluate(self, record: Record) -> float:
        """Score the current weights, keep them if they are the best; returns the validation loss."""
        self.flush(record)
        self.at.marks = self.limits.marks(self.at)
        start = time.perf_counter()
        with self.objective.judged():
            return self._evaluate(record, start)

    def _evaluate(self, record: Record, start: float) -> float:
        told = self.world.tell(lambda: json.dumps(asdict(self.scores())).encode())
        scores = Scores(**json.loads(told))
        self.at.seconds["evaluate"] += time.perf_counter() - start
        for part in scores.metric:
            record.add(self.at.clock, Metric(self.graph.metric, part, scores.metric[part]))
            record.add(self.at.clock, Metric("loss", part, scores.loss[part]))
        self.instruments.scored(scores.metric)
        guide = "valid" if "valid" in scores.metric else "train"
        by_loss = self.config.select == "loss"
        value = -scores.loss[guide] if by_loss else scores.metric[guide]
        if self.at.selection.offer(self.at.epoch, self.at.step, value, scores):
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return scores.loss[guide]

    def scores(self) -> Scores:
        """Those of the current weights."""
        chunk = self.config.evaluate_chunk
        full = self.full if chunk is None else None
        return evaluate(self.model, self.graph, full, statistics=self.statistics, chunk=chunk)

    def weights(self) -> dict[str, Tensor]:
        """The best ones, with the statistics that they were judged by. The last ones are forgotten."""
        self.model.load_state_dict(self.best)
        if self.statistics == "population":
            reestimate(self.model, self.graph, chunk=self.config.evaluate_chunk)
        return self.model.state_dict()

    def result(self) -> dict[str, Any]:
        """What the summary needs of this seed."""
        at = self.at
        assert self.graph.split is not None
        at.seconds["instruments"] = self.instruments.seconds
        at.seconds["total"] = time.perf_counter() - self.began
        return {
            "seed": at.seed,
            "split": self.graph.split.id,
            "metric": at.selection.metric,
            "best_epoch": at.selection.epoch,
            "best_step": at.selection.step,
            "epochs": at.epoch,
            "batches": self.plans.num_batches,
            "steps": at.step,
            "edges": at.edges,
            "nodes": at.nodes,
            "bytes": at.bytes,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": at.seconds,
            "instruments": self.instruments.summary(),
        }

    def checkpoint(
        self, record: Record, results: list[dict[str, Any]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything a later process needs to go on."""
        self.flush(record)
        self.at.seconds["total"] = time.perf_counter() - self.began
        tensors, plain = pack_optimizer(self.optimizer)
        packed = prefixed("optimizer", tensors)
        packed |= prefixed("model", self.model.state_dict()) | prefixed("best", self.best)
        packed |= prefixed("memory", self.memory.state())
        packed |= prefixed("objective", self.objective.state())
        measured, instruments = self.instruments.state()
        packed |= prefixed("instruments", measured)
        schedule = self.schedule.state_dict() if self.schedule else None
        seed = {"at": self.at.plain(), "optimizer": plain, "schedule": schedule}
        seed["instruments"] = instruments
        return packed, {"results": results, "seed": seed, "ranks": self.world.size}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.at = SeedState.of(state["at"])
        self.model.load_state_dict(below("model", tensors))
        self.best = {k: v.to(self.graph.device) for k, v in below("best", tensors).items()}
        self.memory.restore(below("memory", tensors))
        self.objective.restore(below("objective", tensors))
        unpack_optimizer(self.optimizer, below("optimizer", tensors), state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.instruments.restore(below("instruments", tensors), state["instruments"])
