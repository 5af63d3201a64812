"""APPNP (Gasteiger et al. 2019, "Predict then Propagate: Graph Neural Networks meet PageRank").

Linear in its messages: valid under every sampler with a debiasing scale.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

from graphdyn.batch import Batch
from graphdyn.graph import Features, Propagation
from graphdyn.keys import Key
from graphdyn.models.alone import Mixture
from graphdyn.models.dropout import edge_site
from graphdyn.models.mlp import MLP
from graphdyn.models.options import Options, positive, probability
from graphdyn.models.output import Output
from graphdyn.models.propagate import Hop, aggregate, attach, blend, drop_edges, source_ids


class APPNP(torch.nn.Module):
    """An MLP whose logits take K steps of personalised PageRank.

    One step is ``z <- (1 - alpha) A z + alpha z0``, starting at the logits z0.

    Args:
        num_features: F.
        num_classes: C.
        hops: K.
        alpha: Teleport probability.
        **options: Of the MLP, see :class:`graphdyn.models.Options`; ``edge_dropout`` is that of the
            propagation, drawn anew at each step, loops exact.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    propagation = Propagation("sym", self_loops=True)

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hops: int = 10,
        alpha: float = 0.1,
        **options: Any,
    ):
        super().__init__()
        positive("hops", hops)
        probability("alpha", alpha)
        self.options = o = Options(**options)
        self.num_hops, self.alpha = hops, alpha
        self.mlp = MLP(num_features, num_classes, **{**vars(o), "edge_dropout": 0.0})

    def forward(self, batch: Batch, *, hidden: bool = True) -> Output:
        """Logits of the last block's targets; the hidden states are the K propagated logits."""
        z = z0 = self.mlp.run(batch.x, batch, source_ids(batch), hidden=False).logits
        key, p = batch.drop_key if self.training else None, self.options.edge_dropout
        kept = []
        for k in range(self.num_hops):
            block = batch.block(k)
            source = attach(z, block)
            z = block.shift(self.step(source, Hop(block, edge_site(key, p, k)), z0))
            kept += [z] if hidden else []
        return Output(z, tuple(kept))

    def step(self, z: Tensor, hop: Hop, z0: Tensor) -> Tensor:
        """One step of PageRank, (S, C) -> (D, C); z0 has at least the rows of the targets."""
        block = drop_edges(hop, self.options.edge_dropout)
        return blend(aggregate(block, z), z0, self.alpha)

    def alone(
        self, x: Features, ids: Tensor | None, key: Key | None, mixture: Mixture | None = None
    ) -> Tensor:
        """See :meth:`graphdyn.models.Stack.alone`: those of the MLP, which PageRank then leaves as they are."""
        return self.mlp.alone(x, ids, key, mixture)

    @property
    def num_states(self) -> int:
        """See :attr:`graphdyn.models.Stack.num_states`; those of the MLP."""
        return self.mlp.num_states

    def recalls(self, hop: int) -> tuple[int, ...]:
        """See :meth:`graphdyn.models.Stack.recalls`: the output of the hop before."""
        return (hop - 1,)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Those of the MLP; the propagation has none."""
        return self.mlp.parameter_groups()
