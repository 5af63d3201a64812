"""Grid: what a study compares, from a file, flags or Python, to named cells with a configuration each."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from graphdyn.config import BUDGETS, Config
from graphdyn.errors import InputError, unknown

# What a study decides itself, cell by cell or for all of them.
OWN = {
    "seeds": "[seeds]",
    "first_seed": "[seeds]",
    "out": "--out",
    "evaluations": "[budget]",
    **{f"max_{name}": "[budget]" for name in BUDGETS},
}
# Seeds from here on are those of tuning trials, so that no trial shares one with the study.
TUNING_SEED = 1_000_000
# Their values are names of their own; those of other axes are told with their field.
_NAMES = ("dataset", "model", "preset", "sampler", "memory", "regularizer", "method")
# One core a run: then seconds of methods can be compared, whatever runs beside them.
_DEFAULTS: dict[str, Any] = {"threads": 1, "workers": 0}
_NOTHING = object()


@dataclass(frozen=True)
class Tune:
    """The search for a learning rate and a batch size, the same for every cell.

    Attributes:
        trials: How many a cell.
        lr: Lowest and highest learning rate; drawn evenly in its logarithm.
        batch_size: Choices; cells whose sampler has no batch size search for the learning rate alone.
        seeds: Seeds of a trial; they are none of the study's.
    """

    trials: int = 16
    lr: tuple[float, float] | None = (1e-4, 1e-1)
    batch_size: tuple[int, ...] = ()
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.lr is not None:
            object.__setattr__(self, "lr", tuple(self.lr))
        object.__setattr__(self, "batch_size", tuple(self.batch_size))
        if self.trials < 1 or self.seeds < 1:
            raise InputError(
                f"[tune] has {self.trials} trials of {self.seeds} seeds; give at least one of each."
            )
        if self.lr is not None and not (len(self.lr) == 2 and 0 < self.lr[0] <= self.lr[1]):
            raise InputError(
                f"[tune] lr is {list(self.lr)}; give the lowest and the highest, both positive."
            )
        if self.lr is None and not self.batch_size:
            raise InputError("[tune] searches for nothing; give lr = [low, high] or batch_size.")


@dataclass(frozen=True)
class Cell:
    """One thing that is compared: a configuration, over the seeds of the study.

    Attributes:
        name: For people, unique.
        slug: For the file system, unique.
        labels: What it is, by axis.
        config: Of its runs, but for seed and folder.
    """

    name: str
    slug: str
    labels: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class Study:
    """What to compare, over which seeds, under which budget. The tables of a study file have these names.

    Attributes:
        name: Of the study.
        seeds: ``{"count": 5, "first": 0}``, or how many. The same in every cell.
        budget: Of each run: ``steps``, ``edges``, ``seconds`` or ``bytes``, whichever is used up first, and
            ``evaluations``, how many lie evenly along it.
        base: Fields of :class:`graphdyn.config.Config` for all cells.
        grid: Values by field, dotted for options: ``{"sampler_options.estimator": ["ht", "hajek"]}``. Cells are
            all their combinations.
        methods: An axis of named bundles of fields: ``[{"name": "gas", "preset": "gas", "batch_size": 10}]``.
        cells: Further cells, one by one: fields, and a ``name`` if wanted.
        exclude: Combinations to leave out: values, or lists of values, by label or field.
        override: ``[{"when": {...}, "set": {...}}]``: fields for the cells that match, axes excepted.
        baseline: Labels of the cell that others are compared with.
        target: Validation value whose time of arrival counts; by default a share of the baseline's best.
        tune: A :class:`Tune`, or its fields.
    """

    name: str = "study"
    seeds: int | dict[str, int] = 5
    budget: dict[str, int | float] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    methods: list[dict[str, Any]] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    override: list[dict[str, Any]] = field(default_factory=list)
    baseline: dict[str, Any] | None = None
    target: float | None = None
    tune: Tune | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tune, Mapping):
            known = [f.name for f in fields(Tune)]
            _check_names("[tune] entry", self.tune, known)
            object.__setattr__(self, "tune", Tune(**self.tune))
        _check(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Study:
        """A study from plain values.

        Raises:
            InputError: If a name is unknown or a value does not fit.
        """
        _check_names("table of a study", values, [f.name for f in fields(cls)])
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """A study from a TOML file.

        Raises:
            InputError: If the file cannot be read or does not fit.
        """
        try:
            values = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}.") from None
        return cls.from_dict({"name": Path(path).stem, **values})

    def plain(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_dict` takes them back."""
        return asdict(self)

    @property
    def seed_numbers(self) -> range:
        """The seeds of every cell."""
        if isinstance(self.seeds, int):
            return range(self.seeds)
        first = self.seeds.get("first", 0)
        return range(first, first + self.seeds.get("count", 5))

    @property
    def limits(self) -> dict[str, Any]:
        """The fields of a configuration that say the budget."""
        own = {n: v for n, v in self.budget.items() if n in BUDGETS}
        limits: dict[str, Any] = {f"max_{n}": v for n, v in own.items()}
        return limits | {n: v for n, v in self.budget.items() if n not in BUDGETS}

    def expand(self) -> list[Cell]:
        """All cells, in the order of the axes.

        Raises:
            InputError: If a cell cannot be configured, two are the same, or a rule matches none.
        """
        found = _Rules(self).applied(_points(self))
        if not found:
            raise InputError("the study has no cell; give a [grid], [[methods]] or [[cells]].")
        cells = [_cell(self, point) for point in found]
        _check_unique(cells)
        return cells

    def reference(self, cells: list[Cell]) -> Cell | None:
        """The first cell with the labels of the baseline.

        Raises:
            InputError: If there is none.
        """
        if self.baseline is None:
            return None
        for cell in cells:
            if all(
                _matches(_look(cell.labels, cell.config, n), v) for n, v in self.baseline.items()
            ):
                return cell
        raise InputError(
            f"no cell has the labels of the baseline {self.baseline}; cells are {_some(cells)}."
        )


@dataclass(frozen=True)
class _Point:
    """A cell on its way: values by axis, and fields from everywhere else."""

    axes: dict[str, Any]
    values: dict[str, Any]
    name: str | None = None
    method: str | None = None


def _points(study: Study) -> Iterator[_Point]:
    base = _DEFAULTS | study.base | study.limits
    methods = study.methods or [{}]
    if study.grid or study.methods:
        for values in itertools.product(*study.grid.values()):
            axes = dict(zip(study.grid, values))
            for method in methods:
                own = {n: v for n, v in method.items() if n != "name"}
                merged = _merge(_merge(base, own), _nested(axes))
                yield _Point(axes, merged, method=method.get("name"))
    for cell in study.cells:
        own = {n: v for n, v in cell.items() if n != "name"}
        yield _Point({}, _merge(base, own), name=cell.get("name"))


class _Rules:
    """Exclusions and overrides; each must have something to do."""

    def __init__(self, study: Study) -> None:
        self.exclude, self.override = study.exclude, study.override
        self.idle = [*map(id, self.exclude), *map(id, self.override)]

    def applied(self, points: Iterator[_Point]) -> list[_Point]:
        kept = [self._override(point) for point in points if not self._excluded(point)]
        for kind, rules in (("[[exclude]]", self.exclude), ("[[override]]", self.override)):
            for rule in rules:
                if id(rule) in self.idle:
                    raise InputError(
                        f"the {kind} {rule.get('when', rule)} matches no cell; check it."
                    )
        return kept

    def _hit(self, rule: dict[str, Any], when: dict[str, Any], point: _Point) -> bool:
        config = Config.from_dict(point.values)
        labels = {**point.axes, **({"method": point.method} if point.method else {})}
        hit = all(_matches(_look(labels, config, n), v) for n, v in when.items())
        if hit and id(rule) in self.idle:
            self.idle.remove(id(rule))
        return hit

    def _excluded(self, point: _Point) -> bool:
        hits = [
            self._hit(rule, rule, point) for rule in self.exclude
        ]  # all, so that none seems idle
        return any(hits)

    def _override(self, point: _Point) -> _Point:
        values = point.values
        for rule in self.override:
            if self._hit(rule, rule["when"], point):
                values = _merge(values, rule["set"])
        return _Point(point.axes, values, point.name, point.method)


def _cell(study: Study, point: _Point) -> Cell:
    config = Config.from_dict(point.values)
    labels = {"dataset": _short(config.dataset), "model": config.model}
    for axis, value in point.axes.items():
        labels[axis] = _short(value) if axis == "dataset" else _plain(value)
    if not point.axes and point.name is None:
        _add_axes_of_others(study, config, labels)
    if study.methods or point.name is not None:
        labels["method"] = point.method or point.name or _method(config)
    elif not {"sampler", "preset"} & labels.keys():
        labels["preset" if config.preset else "sampler"] = _method(config)
    name = "/".join(_word(axis, value) for axis, value in labels.items())
    return Cell(name, slug_of(name), labels, config)


def _add_axes_of_others(study: Study, config: Config, labels: dict[str, Any]) -> None:
    """A cell that stands alone has a value on every axis, too."""
    for axis in study.grid:
        if axis in ("sampler", "preset"):
            labels[axis] = _method(config)
        elif axis not in labels:
            labels[axis] = _plain(_look({}, config, axis))


def _method(config: Config) -> str:
    parts = [config.preset or config.sampler or "full", config.memory]
    return "+".join(part for part in parts if part)


def _word(axis: str, value: Any) -> str:
    return str(value) if axis in _NAMES else f"{axis.rpartition('.')[2]}={value}"


def _short(dataset: str) -> str:
    return Path(dataset).stem if dataset.endswith(".toml") else dataset


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def slug_of(name: str) -> str:
    """A name for the file system; of two names never the same, also where case does not count."""
    slug = re.sub(r"[^a-z0-9._=,+-]", "-", name.replace("/", "__"))
    if slug == name.replace("/", "__") and "__" not in name and len(slug) <= 100:
        return slug
    lower = re.sub(r"[^a-z0-9._=,+-]", "-", name.lower().replace("/", "__"))
    return f"{lower[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Fields over fields; options are merged one by one."""
    out = dict(under)
    for name, value in _nested(over).items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = {**out[name], **value} if both else value
    return out


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``; only the first dot counts."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        head, dot, tail = name.partition(".")
        if dot:
            out.setdefault(head, {})[tail] = value
        else:
            out[name] = value
    return out


def _look(labels: Mapping[str, Any], config: Config, name: str) -> Any:
    """A label, or else what the configuration has in a field."""
    if name in labels:
        return labels[name]
    head, dot, tail = name.partition(".")
    if head not in {f.name for f in fields(Config)}:
        if name == "method":
            return None
        raise unknown("label or field", name, [*labels, *(f.name for f in fields(Config))])
    value = getattr(config, head)
    return value.get(tail) if dot and isinstance(value, Mapping) else value


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_matches(value, one) for one in wanted)
    return _plain(value) == wanted


def _check(study: Study) -> None:
    if not isinstance(study.name, str) or not study.name:
        raise InputError(f"name is {study.name!r}; expected a word.")
    if isinstance(study.seeds, Mapping):
        _check_names("[seeds] entry", study.seeds, ("count", "first"))
    numbers = study.seed_numbers
    if not numbers or numbers.start < 0 or numbers.stop > TUNING_SEED:
        raise InputError(
            f"seeds is {study.seeds}; give at least one, all of them in 0..{TUNING_SEED - 1}."
        )
    _check_names("[budget] entry", study.budget, (*BUDGETS, "epochs", "evaluations"))
    for where, values in _tables(study):
        _check_fields(where, values)
    for axis, values in study.grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"[grid] {axis} is {values!r}; expected a list of values.")
    for method in study.methods:
        if not isinstance(method.get("name"), str):
            raise InputError(f"the method {method} has no name; give it one.")
    for rule in study.override:
        if set(rule) != {"when", "set"}:
            raise InputError(
                f"an [[override]] needs when and set; got {', '.join(rule) or 'none'}."
            )
        taken = rule["set"].keys() & study.grid.keys()
        if taken:
            raise InputError(
                f"an [[override]] sets {', '.join(taken)}, which is an axis; use [[exclude]]."
            )
    if study.target is not None and not math.isfinite(study.target):
        raise InputError(f"target is {study.target}; expected a number.")


def _tables(study: Study) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "[base]", study.base
    yield "[grid]", study.grid
    yield from (("[[methods]]", {n: v for n, v in m.items() if n != "name"}) for m in study.methods)
    yield from (("[[cells]]", {n: v for n, v in c.items() if n != "name"}) for c in study.cells)
    yield from (("[[override]]", rule.get("set", {})) for rule in study.override)


def _check_fields(where: str, values: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(Config)]
    for name in values:
        head, dot, _ = name.partition(".")
        if head not in known:
            raise unknown(f"field in {where}", head, known)
        if dot and "options" not in head and head != "weight_decay_for":
            raise InputError(f"{where} has {name}, but {head} holds no options.")
        if name in OWN:
            raise InputError(f"{where} has {name}, which belongs under {OWN[name]}.")


def _check_names(kind: str, values: Mapping[str, Any], known: Any) -> None:
    for name in values:
        if name not in known:
            raise unknown(kind, name, known)


def _check_unique(cells: list[Cell]) -> None:
    names: dict[str, Cell] = {}
    configs: dict[str, Cell] = {}
    for cell in cells:
        if cell.name in names:
            raise InputError(f"two cells are called {cell.name}; give one a name of its own.")
        if cell.config.id in configs:
            raise InputError(
                f"the cells {configs[cell.config.id].name} and {cell.name} are the same configuration; "
                "leave one out."
            )
        names[cell.name] = configs[cell.config.id] = cell


def _some(cells: list[Cell]) -> str:
    shown = ", ".join(cell.name for cell in cells[:5])
    return shown + (f" and {len(cells) - 5} more" if len(cells) > 5 else "")
