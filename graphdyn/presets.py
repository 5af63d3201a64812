"""Methods: a sampler and what is remembered beside it. Published methods are presets, by name.

Every method is Seeds x Expand x Weight x Memory: a preset says which, and each part may be replaced by
another for which the combination is defined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.memories import MEMORIES, Memories, Memory, MemoryRecipe, Setting
from graphdyn.memories import build as build_memory
from graphdyn.parallel import World
from graphdyn.recipes import option_kinds
from graphdyn.samplers import SAMPLERS, Plans, Sampler
from graphdyn.samplers import build as build_sampler


@dataclass(frozen=True)
class Preset:
    """A published method.

    Attributes:
        paper: Authors, year, venue.
        sampler: A name in :data:`graphdyn.samplers.SAMPLERS`.
        sampler_options: Its fields, where they are not the defaults.
        memory: Names in :data:`graphdyn.memories.MEMORIES`, joined by ``+``.
        memory_options: Fields of these, where they are not the defaults.
    """

    paper: str
    sampler: str
    sampler_options: dict[str, Any] = field(default_factory=dict)
    memory: str = ""
    memory_options: dict[str, Any] = field(default_factory=dict)


_VR = "Chen, Zhu & Song 2018 (ICML), VR-GCN"
_GAS = "Fey, Lenssen, Weichert & Leskovec 2021 (ICML), GNNAutoScale"
_SGCN = "Cong, Ramezani & Mahdavi 2021 (arXiv 2103.02696)"
_CONTROL, _PARTS = {"mode": "control"}, {"estimator": "unit"}

_SNAPSHOTS = {"every": 10, "drift": 0.002}  # as in the authors' code

PRESETS: dict[str, Preset] = {
    "vr-gcn": Preset(_VR, "neighbor", {"fanouts": "2"}, "history", _CONTROL),
    "vr-gcn-cvd": Preset(f"{_VR}, dropout", "neighbor", {"fanouts": "2"}, "cvd"),
    "vr-gcn-pp": Preset(
        f"{_VR}, preprocessing", "neighbor", {"fanouts": "2"}, "preprocess+history", _CONTROL
    ),
    "gas": Preset(_GAS, "cluster", _PARTS, "history"),
    "graphfm-ib": Preset(
        "Yu et al. 2022 (ICML), GraphFM", "cluster", _PARTS, "history", {"momentum": 0.9}
    ),
    "graphfm-ob": Preset("Yu et al. 2022 (ICML), GraphFM", "cluster", _PARTS, "graphfm"),
    "rest": Preset(
        "Xue, Zhao, Shah & Liu 2025 (ICML), REST", "cluster", _PARTS, "history", {"refresh": 1}
    ),
    "lmc": Preset("Shi, Liang & Wang 2023 (ICLR)", "cluster", _PARTS, "lmc"),
    "mvs": Preset(
        "Cong, Forsati, Kandemir & Mahdavi 2020 (KDD), MVS-GNN",
        "induced",
        {"batch_size": 512},
        "mvs",
    ),
    "fresh": Preset("Huang et al. 2024 (VLDB), FreshGNN", "neighbor", {"fanouts": "10"}, "fresh"),
    "importance": Preset(
        "Katharopoulos & Fleuret 2018 (ICML)", "neighbor", {"fanouts": "10"}, "importance"
    ),
    "bandit": Preset("Liu et al. 2020 (NeurIPS)", "bandit", {}, "bandit"),
    "svrg": Preset("Johnson & Zhang 2013 (NeurIPS)", "neighbor", {"fanouts": "10"}, "svrg"),
    "spider": Preset("Fang et al. 2018 (NeurIPS)", "neighbor", {"fanouts": "10"}, "spider"),
    "saga": Preset(
        "Defazio, Bach & Lacoste-Julien 2014 (NeurIPS), last layer",
        "neighbor",
        {"fanouts": "10"},
        "saga",
    ),
    "sgcn+": Preset(f"{_SGCN}, zeroth order", "neighbor", {"fanouts": "5"}, "output", _SNAPSHOTS),
    "sgcn++": Preset(
        f"{_SGCN}, doubly reduced", "neighbor", {"fanouts": "5"}, "output+spider", _SNAPSHOTS
    ),
}


class Prepared(NamedTuple):
    """A method bound to a graph and a model.

    Attributes:
        plans: For a :class:`graphdyn.loader.Loader`.
        memory: For :func:`graphdyn.step.train`; call its ``start`` before the first step.
    """

    plans: Plans
    memory: Memory


@dataclass(frozen=True)
class Method:
    """A sampler and memories.

    Attributes:
        sampler: The recipe, before memories make room for themselves.
        memories: Recipes, in the order in which they act.
    """

    sampler: Sampler
    memories: tuple[MemoryRecipe, ...] = ()

    @property
    def wrapped(self) -> Sampler:
        """The sampler with room for what is remembered."""
        sampler = self.sampler
        for recipe in self.memories:
            sampler = recipe.wrap(sampler)
        return sampler

    def at_most(self, nodes: int) -> Method:
        """The same method, its batches no larger than a number of nodes."""
        size = getattr(self.sampler, "batch_size", None)
        if size is None or size <= nodes:
            return self
        return replace(self, sampler=replace(self.sampler, batch_size=nodes))  # pyright: ignore

    def check(self, model: Any, world: World = World()) -> None:
        """Raise :class:`InputError` if a memory is not valid for the model, or for several ranks."""
        for recipe in self.memories:
            recipe.check(model)
            if not (world.alone or vars(type(recipe)).get("parallel")):
                raise InputError(
                    f"the memory '{type(recipe).__name__}' is not defined for {world.size} ranks; start "
                    "one process, or choose another memory."
                )

    def declare(self, model: Any, graph: Graph) -> int:
        """Bytes that the memories will hold."""
        return sum(recipe.declare(model, graph) for recipe in self.memories)

    def bind(self, setting: Setting) -> Memory:
        """The memories of one run."""
        return Memories([recipe.bind(setting) for recipe in self.memories])

    def prepare(
        self,
        model: Any,
        graph: Graph,
        *,
        nodes: Tensor | None = None,
        key: Key = Key(0),
        world: World = World(),
    ) -> Prepared:
        """Everything that a training loop of one's own needs.

        Args:
            model: Any graphdyn model, on the device of the graph.
            graph: With features, labels and a split.
            nodes: (T,) nodes whose loss counts; by default the training split.
            key: Of the run.
            world: Who trains together; also for :func:`graphdyn.step.train`.

        Returns:
            Plans and memory.

        Raises:
            InputError: If sampler, memory, model and graph do not fit each other.

        Example:
            >>> import graphdyn as gd
            >>> graph = gd.load("csbm")
            >>> model = gd.GCN(graph.num_features, graph.num_classes, seed=0)
            >>> plans, memory = gd.method("vr-gcn", batch_size=50).prepare(model, graph)
            >>> memory.start()
            >>> optimizer = gd.build_optimizer(model, "adam", lr=0.01)
            >>> steps = gd.train(model, gd.Loader(plans, graph), optimizer, memory=memory)
            >>> len([step.loss for step in steps])
            3
        """
        self.check(model, world)
        plans = self.wrapped.prepare(
            graph, model.propagation, model.num_hops, nodes=nodes, key=key, world=world
        )
        return Prepared(plans, self.bind(Setting(model, graph, plans, key, nodes, world=world)))


def method(
    preset: str | None = None,
    *,
    sampler: str | None = None,
    memory: str | None = None,
    **options: Any,
) -> Method:
    """A method by name, or from parts.

    Args:
        preset: A key of :data:`PRESETS`.
        sampler: By name, in place of the preset's; without a preset ``full`` by default.
        memory: Names joined by ``+``, in place of the preset's; "" is none.
        **options: Fields of the sampler and of the memories, each given to whoever has it.

    Returns:
        The method.

    Raises:
        InputError: If a name or an option is not known, or a value does not fit.
    """
    base = named(preset, sampler, memory)
    kinds = _kinds(base)
    for option in options:
        if not any(option in kind for kind in kinds.values()):
            known = sorted({name for kind in kinds.values() for name in kind})
            raise unknown(f"option of {', '.join(kinds)}", option, known)
    own = {n: v for n, v in options.items() if n in option_kinds(SAMPLERS[base.sampler])}
    rest = {
        n: v
        for n, v in options.items()
        if any(n in kinds[f"the memory {m}"] for m in split(base.memory))
    }
    return assemble_method(base, own, rest)


def named(preset: str | None, sampler: str | None, memory: str | None) -> Preset:
    """The preset with its parts replaced; their options stay where the new part has them too.

    Raises:
        InputError: If a name is not known.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    base = Preset("", "full") if preset is None else PRESETS[preset]
    name = base.sampler if sampler is None else sampler
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    memories = base.memory if memory is None else memory
    for part in split(memories):
        if part not in MEMORIES:
            raise unknown("memory", part, MEMORIES)
    out = Preset(base.paper, name, {}, memories, {})
    kinds = _kinds(out)
    sampled = {n: v for n, v in base.sampler_options.items() if n in option_kinds(SAMPLERS[name])}
    kept = {
        n: v
        for n, v in base.memory_options.items()
        if any(n in kinds[f"the memory {m}"] for m in split(memories))
    }
    return Preset(base.paper, name, sampled, memories, kept)


def assemble_method(
    base: Preset, sampler_options: Mapping[str, Any], memory_options: Mapping[str, Any]
) -> Method:
    """The recipes of a preset under further options.

    Raises:
        InputError: If an option is not known, or a value does not fit.
    """
    recipe = build_sampler(base.sampler, **{**base.sampler_options, **sampler_options})
    return Method(recipe, _memories(base, {**base.memory_options, **memory_options}))


def _memories(base: Preset, options: Mapping[str, Any]) -> tuple[MemoryRecipe, ...]:
    names = split(base.memory)
    known = {name: option_kinds(MEMORIES[name]) for name in names}
    for option in options:
        if not names:
            raise InputError(f"memory option {option} was given, but there is no memory; name one.")
        if not any(option in kinds for kinds in known.values()):
            every = sorted({n for kinds in known.values() for n in kinds})
            raise unknown(f"option of the memory {base.memory}", option, every)
    return tuple(
        build_memory(name, **{n: v for n, v in options.items() if n in known[name]})
        for name in names
    )


def split(memory: str) -> list[str]:
    """The names in "a+b"."""
    return [part.strip() for part in memory.split("+") if part.strip()]


def _kinds(base: Preset) -> dict[str, dict[str, str]]:
    # A sampler and a memory may share a name.
    recipes: dict[str, type[Any]] = {f"the sampler {base.sampler}": SAMPLERS[base.sampler]}
    recipes |= {f"the memory {name}": MEMORIES[name] for name in split(base.memory)}
    return {name: option_kinds(recipe) for name, recipe in recipes.items()}
