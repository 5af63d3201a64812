"""One full-batch training epoch (forward, backward, Adam) on the ogbn-arxiv graph: graphdyn beside PyG.

    python benchmarks/epoch.py [--rounds 5] [--threads 2]

3 layers, 200 dense features, 2.48 M edges with self-loops. GCN: hidden 256, with and without batch norm and
dropout. GAT: 8 heads of 32. PyG runs at its documented best each way: normalised once (`cached=True` or a
normalised torch CSR), self-loops added beforehand. Times are taken in turns in one process; peak memory is
that of a fresh process that runs one variant alone.
"""

import argparse
import json
import subprocess
import sys
import warnings
from itertools import pairwise

import torch
import torch.nn.functional as F
from common import interleaved, median, save
from graphs import arxiv

from graphdyn import GAT, GCN, Propagation, full_batch, node_loss
from graphdyn.keys import Key
from graphdyn.machine import peak_memory

HIDDEN, LAYERS, HEADS = 256, 3, 8


def ours(graph, model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch = full_batch(graph, model.propagation, key=Key(0))
    epochs = iter(range(10**9))

    def epoch():
        step = batch.at(batch.key.at(epoch=next(epochs)))
        model.train()
        optimizer.zero_grad()
        node_loss(model(step, hidden=False).logits, step).backward()
        optimizer.step()

    return epoch


class PygNet(torch.nn.Module):
    """The network as PyG's examples write it."""

    def __init__(self, convs, norms, dropout, activation):
        super().__init__()
        self.convs, self.norms = torch.nn.ModuleList(convs), torch.nn.ModuleList(norms)
        self.dropout, self.activation = dropout, activation

    def forward(self, x, *edges):
        for i, conv in enumerate(self.convs):
            x = conv(x, *edges)
            if i + 1 < len(self.convs):
                x = self.norms[i](x) if self.norms else x
                x = F.dropout(self.activation(x), self.dropout, self.training)
        return x


def pyg_epoch(graph, model, edges):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y, train = graph.x, graph.y, graph.split.train

    def epoch():
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(x, *edges)[train], y[train]).backward()
        optimizer.step()

    return epoch


def pyg_edges(graph, propagation, layout):
    """(edge_index, weight) or a torch CSR ``adj_t``, self-loops and weights inside."""
    matrix = graph.adjacency(propagation)
    csc, values = matrix.csc, matrix.values
    if layout == "csr":
        values = torch.ones(csc.num_edges) if values is None else values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            size = (csc.num_dst, csc.num_src)
            return (torch.sparse_csr_tensor(csc.indptr.long(), csc.indices.long(), values, size),)
    edge_index = torch.stack([csc.indices.long(), csc.dst.long()])
    return (edge_index,) if values is None else (edge_index, values)


def build_gcn(graph, norm, dropout):
    return GCN(
        graph.num_features,
        graph.num_classes,
        hidden=HIDDEN,
        layers=LAYERS,
        norm=norm,
        dropout=dropout,
    )


def build_pyg_gcn(graph, norm, dropout):
    from torch_geometric.nn import GCNConv

    widths = [graph.num_features, HIDDEN, HIDDEN, graph.num_classes]
    convs = [GCNConv(a, b, normalize=False) for a, b in pairwise(widths)]
    norms = [torch.nn.BatchNorm1d(HIDDEN) for _ in range(LAYERS - 1)] if norm == "batch" else []
    return PygNet(convs, norms, dropout, F.relu)


def build_pyg_gat(graph):
    from torch_geometric.nn import GATConv

    wide = HEADS * (HIDDEN // HEADS)
    sizes = [(graph.num_features, 32, True), (wide, 32, True), (wide, graph.num_classes, False)]
    convs = [GATConv(a, b, HEADS, concat=c, add_self_loops=False) for a, b, c in sizes]
    return PygNet(convs, [], 0.0, F.elu)


def build_gat(graph):
    return GAT(
        graph.num_features,
        graph.num_classes,
        hidden=HIDDEN,
        heads=HEADS,
        out_heads=HEADS,
        layers=LAYERS,
        dropout=0.0,
        activation="elu",
    )


SYM, LOOPS = Propagation("sym", True), Propagation("none", True)
VARIANTS = {
    "gcn/graphdyn": lambda g: ours(g, build_gcn(g, "none", 0.0)),
    "gcn/pyg edge_index": lambda g: pyg_epoch(
        g, build_pyg_gcn(g, "none", 0.0), pyg_edges(g, SYM, "coo")
    ),
    "gcn/pyg csr": lambda g: pyg_epoch(g, build_pyg_gcn(g, "none", 0.0), pyg_edges(g, SYM, "csr")),
    "gcn+bn+dropout/graphdyn": lambda g: ours(g, build_gcn(g, "batch", 0.5)),
    "gcn+bn+dropout/pyg edge_index": lambda g: pyg_epoch(
        g, build_pyg_gcn(g, "batch", 0.5), pyg_edges(g, SYM, "coo")
    ),
    "gcn+bn+dropout/pyg csr": lambda g: pyg_epoch(
        g, build_pyg_gcn(g, "batch", 0.5), pyg_edges(g, SYM, "csr")
    ),
    "gat/graphdyn": lambda g: ours(g, build_gat(g)),
    "gat/pyg edge_index": lambda g: pyg_epoch(g, build_pyg_gat(g), pyg_edges(g, LOOPS, "coo")),
}


def peak_of(name: str, threads: int) -> int:
    """Peak resident bytes of a fresh process that runs two epochs of one variant."""
    command = [sys.executable, __file__, "--alone", name, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["peak"]


def alone(name: str) -> None:
    epoch = VARIANTS[name](arxiv())
    for _ in range(2):
        epoch()
    print(json.dumps({"peak": peak_memory(torch.device("cpu"))}))


def measure(rounds: int, threads: int, kinds: list[str]) -> dict:
    graph = arxiv()
    results = {}
    for kind in kinds:
        names = [name for name in VARIANTS if name.startswith(f"{kind}/")]
        seconds = interleaved({name: VARIANTS[name](graph) for name in names}, rounds)
        base = median(seconds[names[0]])
        for name in names:
            results[name] = {
                "seconds": seconds[name],
                "ratio": median(seconds[name]) / base,
                "peak_bytes": peak_of(name, threads),
            }
            row = results[name]
            print(
                f"{name:32} {median(seconds[name]):8.3f} s  {row['ratio']:6.2f} x  "
                f"{row['peak_bytes'] / 2**30:6.2f} GiB",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=["gcn", "gcn+bn+dropout", "gat"])
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        alone(options.alone)
        return
    print(f"{'variant':32} {'median':>10}  {'ratio':>8}  {'peak':>10}")
    print(save("epoch", measure(options.rounds, options.threads, options.only)))


if __name__ == "__main__":
    main()
