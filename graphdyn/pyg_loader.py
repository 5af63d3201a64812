"""Any sampler in a stock PyTorch Geometric training loop; PyG's ``Data`` goes in and comes out.

The caller says which matrix the model's layers multiply with. ``edge_weight`` is the full graph's entry
of that matrix times the sampler's scale, so layers must neither normalise nor average on their own:

============  ======================  ===========================================================
propagation   matrix                  layers
============  ======================  ===========================================================
``"gcn"``     D^-1/2 (A + I) D^-1/2   ``GCNConv(normalize=False)``; loops are in ``edge_index``
``"mean"``    D^-1 A                  ``GraphConv(aggr="add")``, which is GraphSAGE with the mean;
                                      ``SAGEConv(aggr="sum")`` on :attr:`Adj.adj_t`
``"none"``    A                       ``GraphConv(aggr="add")``; layers without edge weights
============  ======================  ===========================================================

Layers that take no edge weight see the edges that were drawn, but no scale. ``SAGEConv`` with the mean
is right all the same where all edges of a row have the same weight and scale: uniform neighbour
sampling on graphs without loops and weights. ``GATConv`` adds its loops itself; attention needs the
logarithm of the scale inside its softmax, where nobody else can put it: use :class:`graphdyn.GAT`, or
samplers whose scales are 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphdyn.batch import Batch
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph, Propagation
from graphdyn.keys import Key
from graphdyn.loader import Loader
from graphdyn.pyg import to_data
from graphdyn.samplers import Sampler
from graphdyn.samplers.sampler import training_nodes

if TYPE_CHECKING:
    from torch_geometric.data import Data

PROPAGATIONS = {
    "gcn": Propagation("sym", self_loops=True),
    "mean": Propagation("mean", self_loops=False),
    "none": Propagation("none", self_loops=False),
}


class PygLoader:
    """Any sampler as a loader of PyG batches, for a stock training loop.

    Iterating once is one epoch; the next time is the next epoch. Batches are a function of ``seed`` and
    epoch alone, whatever ``workers`` is. Losses are weighted, never averaged over the batch::

        for data in loader:
            out = model(data.x, data.edge_index, data.edge_weight)[: data.batch_size]
            loss = F.cross_entropy(out, data.y[: data.batch_size], reduction="none")
            (loss * data.seed_weight).sum().backward()

    Args:
        sampler: Any; layered ones with ``reuse=True``, or with ``adjs``.
        data: PyG's ``Data`` (read by :meth:`graphdyn.Graph.from_pyg`: edges are sorted by target, and ``e_id``
            counts those of the propagation matrix), or a graph.
        propagation: What the model's layers multiply with: ``"gcn"``, ``"mean"``, ``"none"``, see the
            module, or any :class:`graphdyn.Propagation`.
        num_layers: Message-passing layers of the model.
        nodes: (T,) ids or (N,) mask of the seeds; by default the training nodes.
        seed: Of all randomness.
        adjs: Yield the layers one by one, see :class:`Adj`.
        workers: Threads that sample ahead, see :class:`graphdyn.Loader`.
        device: Where batches are wanted; by default where the data is.

    Attributes:
        graph: The data as a graph.
        propagation: The matrix, see the module.
        pool: (T,) ids of all seeds.
        plans: The prepared sampler.
        epoch: Which one comes next; set it to resume.

    Raises:
        InputError: If the sampler does not fit the data, or the data lacks features, labels or seeds.
    """

    def __init__(
        self,
        sampler: Sampler,
        data: Data | Graph,
        propagation: str | Propagation = "gcn",
        *,
        num_layers: int,
        nodes: Tensor | None = None,
        seed: int = 0,
        adjs: bool = False,
        workers: int = 2,
        device: torch.device | str | None = None,
    ):
        if isinstance(propagation, str):
            if propagation not in PROPAGATIONS:
                raise unknown("propagation", propagation, PROPAGATIONS)
            propagation = PROPAGATIONS[propagation]
        if num_layers < 1:
            raise InputError(f"num_layers is {num_layers}; it must be at least 1.")
        self.graph = graph = data if isinstance(data, Graph) else Graph.from_pyg(data)
        if nodes is not None and nodes.dtype == torch.bool:
            nodes = torch.nonzero(nodes).flatten()
        self.propagation = propagation
        self.pool = pool = training_nodes(graph, nodes)
        self._place = torch.empty(graph.num_nodes, dtype=torch.int64, device=pool.device)
        self._place[pool] = torch.arange(pool.numel(), device=pool.device)
        self.plans = sampler.prepare(graph, propagation, num_layers, nodes=nodes)
        self.num_layers, self.seed, self.adjs = num_layers, seed, adjs
        self.workers, self.device, self.epoch = workers, device, 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.plans.num_batches

    def __iter__(self) -> Iterator[Data]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        options: Any = {"workers": self.workers, "device": self.device}
        epochs = range(epoch, epoch + 1)
        with Loader(
            self.plans, self.graph, key=Key(self.seed), epochs=epochs, **options
        ) as batches:
            for batch in batches:
                yield self.data(batch)

    def data(self, batch: Batch) -> Data:
        """A batch of :attr:`plans` as the loop would get it."""
        data = to_data(batch, self.graph, num_layers=self.num_layers, adjs=self.adjs)
        place = self._place[data.input_id.to(self._place.device)]
        data.input_id = place.to(data.input_id.device)
        return data
