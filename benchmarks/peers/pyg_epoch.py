"""One training epoch of a three-layer GraphSAGE (hidden 256, batch norm, ReLU, dropout 0.5, Adam) in PyG.

    PYTHON benchmarks/peers/pyg_epoch.py FOLDER --mode documented [--workers 0]
    PYTHON benchmarks/peers/pyg_epoch.py FOLDER --mode best --drawn BATCHES [--adj csr-mean] [--shape bipartite]

``documented``: NeighborLoader feeds SAGEConv with edge_index; the first rows of the output are the seeds'.
Everything counts: sampling, gathering of features, the step.

``best``: batches drawn beforehand (peers/pyg_batches.py) and one adjacency a layer, built outside the clock;
only forward, backward and optimiser count, the gathering of features is told apart. ``--shape trim`` is what
``trim_to_layer`` gives: square matrices that shrink by a hop a layer. ``--shape bipartite`` computes
nothing but the rows that the next layer reads. ``--adj`` is what SAGEConv gets: csr-mean (torch CSR of
ones), csr-sum (torch CSR whose rows are divided by their length) or edge_index.
"""

import itertools
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import protocol
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import SAGEConv

HIDDEN, DROPOUT = 256, 0.5
ADJ = ("csr-mean", "csr-sum", "edge_index")


class Net(torch.nn.Module):
    """The network as PyG's examples write it; ``layers`` gives each layer's operand and its targets."""

    def __init__(self, widths, aggr):
        super().__init__()
        self.convs = torch.nn.ModuleList(SAGEConv(a, b, aggr=aggr) for a, b in pairwise(widths))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(w) for w in widths[1:-1])

    def forward(self, x, layers):
        for i, (conv, (rows, adj)) in enumerate(zip(self.convs, layers)):
            # Square: trimmed features on both sides. Bipartite: all sources, and the targets ahead of them.
            x = conv(x[:rows], adj) if isinstance(rows, int) else conv((x, x[: rows[0]]), adj)
            if i + 1 < len(self.convs):
                x = F.dropout(self.norms[i](x).relu(), DROPOUT, self.training)
        return x


def step(model, optimizer, x, layers, y):
    optimizer.zero_grad()
    F.cross_entropy(model(x, layers)[: y.numel()], y).backward()
    optimizer.step()


def documented(options, data, model, optimizer):
    """Seconds of whole epochs."""
    loader = NeighborLoader(
        data,
        options.fanouts,
        input_nodes=data.seeds,
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    stop = options.batches or len(loader)

    def run(batches):
        start = time.perf_counter()
        for batch in itertools.islice(loader, batches):
            layers = [(batch.num_nodes, batch.edge_index)] * len(model.convs)
            step(model, optimizer, batch.x, layers, batch.y[: batch.batch_size])
        return time.perf_counter() - start

    run(protocol.WARMUP)
    return {"epoch_seconds": [run(stop) for _ in range(options.rounds)], "batches": stop}


def adjacency(kind, row, col, num_dst, num_src):
    """Messages from ``row`` to ``col`` (ascending) in the form that SAGEConv is given."""
    if kind == "edge_index":
        return torch.stack([row, col])
    degree = torch.bincount(col, minlength=num_dst)
    rowptr = F.pad(degree.cumsum(0), (1, 0))
    ones = torch.ones(row.numel())
    values = ones / degree[col] if kind == "csr-sum" else ones
    return torch.sparse_csr_tensor(rowptr, row, values, (num_dst, num_src))


def layers_of(batch, options, num_layers):
    """One (rows, adjacency) a layer: layer l needs targets within ``num_layers - 1 - l`` hops."""
    nodes, edges = np.cumsum(batch["nodes_per_hop"]), np.cumsum(batch["edges_per_hop"])
    row, col = (torch.from_numpy(batch[name]).long() for name in ("row", "col"))
    layers = []
    for layer in range(num_layers):
        hop = num_layers - 1 - layer
        src, dst, kept = int(nodes[hop + 1]), int(nodes[hop]), int(edges[hop])
        square = options.shape == "trim"
        adj = adjacency(options.adj, row[:kept], col[:kept], src if square else dst, src)
        layers.append((src if square else (dst, src), adj))
    return layers


def best(options, data, model, optimizer):
    """Seconds of forward, backward and optimiser, and of gathering, over the batches of an epoch."""
    paths = sorted(options.drawn.glob("*.npz"))[: options.batches or None]

    def run(path):
        with np.load(path) as batch:
            layers = layers_of(batch, options, len(model.convs))
            n_id = torch.from_numpy(batch["n_id"]).long()
            num_seeds = int(batch["nodes_per_hop"][0])
        start = time.perf_counter()
        x = data.x[n_id]
        gathered = time.perf_counter()
        step(model, optimizer, x, layers, data.y[n_id[:num_seeds]])
        return time.perf_counter() - gathered, gathered - start

    for path in paths[: protocol.WARMUP]:
        run(path)
    epochs = [[run(path) for path in paths] for _ in range(options.rounds)]
    return {
        "epoch_seconds": [sum(seconds for seconds, _ in epoch) for epoch in epochs],
        "gather_seconds": [sum(seconds for _, seconds in epoch) for epoch in epochs],
        "batches": len(paths),
        "adj": options.adj,
        "shape": options.shape,
    }


def main():
    parser = protocol.parser(__doc__)
    parser.add_argument("--mode", choices=["documented", "best"], required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--drawn", type=Path, help="folder of peers/pyg_batches.py")
    parser.add_argument("--adj", choices=ADJ, default=ADJ[0])
    parser.add_argument("--shape", choices=["bipartite", "trim"], default="bipartite")
    parser.set_defaults(threads=2, batches=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    x, y, seeds = (protocol.read(options.folder, name) for name in ("x", "y", "seeds"))
    data = Data(x=x, y=y, seeds=seeds)
    summed = options.mode == "best" and options.adj == "csr-sum"
    model = Net([x.shape[1], HIDDEN, HIDDEN, int(y.max()) + 1], "sum" if summed else "mean")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if options.mode == "best":
        result = best(options, data, model, optimizer)
    else:
        indptr = protocol.read(options.folder, "indptr")
        indices = protocol.read(options.folder, "indices", torch.int64)
        dst = torch.repeat_interleave(torch.arange(y.numel()), indptr.diff())
        data.edge_index = torch.stack([indices, dst])
        result = documented(options, data, model, optimizer) | {"workers": options.workers}
    protocol.answer({"mode": options.mode} | result, options, "torch-geometric", "numpy")


if __name__ == "__main__":
    main()
