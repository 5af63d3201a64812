"""Recipes by name: frozen dataclasses whose fields may come as text, from a command line or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from graphdyn.errors import InputError, unknown

Recipe = TypeVar("Recipe")


def build_recipe(
    kind: str, table: Mapping[str, type[Recipe]], name: str, options: Mapping[str, Any]
) -> Recipe:
    """A recipe of a table, with options.

    Args:
        kind: What the table holds, for the error message.
        table: Dataclasses by name.
        name: Which of them.
        options: Its fields. Text is read as the field's type ("15,10,5" as numbers).

    Returns:
        The recipe.

    Raises:
        InputError: If the name or an option is not known, or a value does not fit.
    """
    if name not in table:
        raise unknown(kind, name, table)
    kinds = option_kinds(table[name])
    for option in options:
        if option not in kinds:
            raise unknown(f"option of the {kind} {name}", option, kinds)
    return table[name](**{o: read_option(o, kinds[o], value) for o, value in options.items()})


def option_kinds(recipe: type[Any]) -> dict[str, str]:
    """The types of a recipe's fields, as written, by name."""
    return {field.name: str(field.type) for field in fields(recipe)}


def read_option(option: str, kind: str, value: Any) -> Any:
    """A value in the type of a field; text comes from the command line or a file.

    Args:
        option: Its name, for the error message.
        kind: The type as written, for example ``"tuple[int, ...] | None"``.
        value: Text, or a value of the type.

    Raises:
        InputError: If the value does not fit.
    """
    if kind.startswith("tuple"):
        value = value.split(",") if isinstance(value, str) else value
        value = (value,) if isinstance(value, int) else value
        return tuple(_number(option, kind, int, item) for item in value)
    if kind.startswith("bool"):
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise InputError(f"{option} is {value!r}; expected true or false.")
        return value
    if kind.startswith(("int", "float")):
        return _number(option, kind, int if kind.startswith("int") else float, value)
    return value


def _number(option: str, kind: str, to: type, value: Any) -> Any:
    if value is None and "None" in kind:
        return None
    try:
        if (
            value is None
            or isinstance(value, bool)
            or (to is int and float(value) != int(float(value)))
        ):
            raise ValueError
        return to(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{option} is {value!r}; expected {kind}.") from None
