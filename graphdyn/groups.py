"""Groups: the trained parameters of a model as one flat vector, cut into named pieces.

Every quadratic quantity (a squared norm, a trace of a covariance, an inner product) is a sum over groups.
Shapes: P numbers, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from graphdyn.errors import InputError, unknown

By = str | Mapping[str, Sequence[str]]


class Groups:
    """Which parameters belong together, and where each group lies in the flat vector.

    Args:
        model: Its parameters with ``requires_grad``.
        by: ``"layer"``: the module that a parameter belongs to, up to the first number in its name
            (``convs.0``), else its first part; ``"tensor"``: each alone; or names of parameters by group,
            what is not named making up the group ``rest``.

    Attributes:
        names: (G) of the groups.
        members: Names of parameters by group.
        parameters: By name, in the order of the flat vector.
        slices: Where each group lies in it.
        places: Where each parameter lies in it.
        size: P.

    Raises:
        InputError: If a name is unknown, or given twice, or nothing is trained.
    """

    def __init__(self, model: nn.Module, by: By = "layer"):
        own = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not own:
            raise InputError(f"{type(model).__name__} has no parameter that is trained.")
        self.members = _members(list(own), by)
        self.names = tuple(self.members)
        self.parameters = {n: own[n] for group in self.members.values() for n in group}
        sizes = [sum(own[n].numel() for n in group) for group in self.members.values()]
        self.slices = {
            n: slice(*ends) for n, ends in zip(self.names, pairwise(accumulate(sizes, initial=0)))
        }
        ends = pairwise(accumulate((p.numel() for p in self.parameters.values()), initial=0))
        self.places = {n: slice(*pair) for n, pair in zip(self.parameters, ends)}
        self.size = sum(sizes)

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(P,) from one tensor a parameter, by name; a copy. 0 where there is none: frozen meanwhile."""
        found = (tensors.get(n, torch.zeros_like(p)) for n, p in self.parameters.items())
        return torch.cat([t.detach().reshape(-1) for t in found])

    def weights(self) -> Tensor:
        """(P,) a copy of the parameters as they are now."""
        return self.flat(self.parameters)

    def grads(self) -> Tensor:
        """(P,) a copy of ``.grad``; 0 where there is none."""
        found = ((p.grad, p) for p in self.parameters.values())
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in found])

    def unflat(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a (P,) vector in the shapes of the parameters, by name."""
        pieces = flat.split([p.numel() for p in self.parameters.values()])
        return {n: v.view_as(p) for (n, p), v in zip(self.parameters.items(), pieces)}

    def pick(self, flat: Tensor, names: Iterable[str]) -> Tensor:
        """(n,) the numbers of these parameters, out of a (P,) vector."""
        return torch.cat([flat[self.places[n]] for n in names])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a (..., P) tensor by group."""
        return {name: flat[..., place] for name, place in self.slices.items()}

    def dots(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """<a_g, b_g> by group, in float64, over the last dimension; nobody waits for a device."""
        products = a.double() * b.double()
        return {name: products[..., place].sum(-1) for name, place in self.slices.items()}


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """The sum over groups."""
    return torch.stack([*parts.values()]).sum(0)


def layer_of(name: str) -> str:
    """The layer that a parameter or module belongs to.

    Example:
        >>> layer_of("convs.0.lin.weight"), layer_of("conv1.bias"), layer_of("weight")
        ('convs.0', 'conv1', 'weight')
    """
    parts = name.split(".")
    numbered = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: numbered + 1])


def _members(names: list[str], by: By) -> dict[str, tuple[str, ...]]:
    if by == "tensor":
        return {n: (n,) for n in names}
    if by == "layer":
        return _gathered((layer_of(n), n) for n in names)
    if isinstance(by, str):
        raise unknown("grouping of parameters", by, ("layer", "tensor"))
    given = [n for group in by.values() for n in group]
    for n in given:
        if n not in names:
            raise unknown("parameter", n, names)
        if given.count(n) > 1:
            raise InputError(f"the parameter {n} was given to more than one group; name it once.")
    rest = tuple(n for n in names if n not in given)
    if rest and "rest" in by:
        raise InputError(
            "a group is called rest, which is the name of what no group has; rename it."
        )
    own = {group: tuple(members) for group, members in by.items() if members}
    return {**own, "rest": rest} if rest else own


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group, name in pairs:
        found[group] = (*found.get(group, ()), name)
    return found
