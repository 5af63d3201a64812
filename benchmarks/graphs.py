"""The graphs of the sampling benchmarks, and their export to folders of .npy files that any environment reads.

    python benchmarks/graphs.py --folder FOLDER [--only arxiv power-law power-law-small]

A folder holds indptr (N + 1, int64), indices (E, int32, sources by target), seeds (int64, shuffled; batches
are taken from them in order) and, where there are features, x (float32) and y (int64).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from graphdyn import CSC, Graph, Key, Split, load
from graphdyn.data import power_law as generate

SMALL, LARGE = 240_000, 2_400_000
DEGREE = 24.65  # drawn pairs; about 24.6 are left when repeated ones are merged
SEED_SHARE = 0.1  # of the nodes of a power law, the share that seeds are taken from


def arxiv() -> Graph:
    """ogbn-arxiv: undirected, without loops, dense features."""
    graph = load("ogbn-arxiv-tape")
    x = graph.x if isinstance(graph.x, torch.Tensor) else graph.x.to_dense()
    object.__setattr__(graph, "x", x)
    return graph


def power_law(num_nodes: int = LARGE) -> Graph:
    """Degrees with density k^-2.5, mean 24.6, node ids without locality: 59 M edges at 2.4 M nodes."""
    return generate(num_nodes, DEGREE, num_features=0, split=None)


GRAPHS = {
    "arxiv": arxiv,
    "power-law": power_law,
    "power-law-small": lambda: power_law(SMALL),
}


def seeds(graph: Graph) -> torch.Tensor:
    """The pool that batches are drawn from: training nodes, or a tenth of all."""
    if graph.split is not None:
        return graph.split.train
    order = Key(0).fold("seeds").permutation(graph.num_nodes)
    return order[: max(1, int(SEED_SHARE * graph.num_nodes))].sort().values


def export(graph: Graph, folder: Path) -> Path:
    """Write a graph, unless the folder holds the same one (by name and size) already."""
    facts = {"name": graph.name, "nodes": graph.num_nodes, "edges": graph.num_edges}
    done = folder / "graph.json"
    if done.exists() and json.loads(done.read_text()) == facts:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    pool = seeds(graph)
    arrays = {
        "indptr": graph.csc.indptr.long(),
        "indices": graph.csc.indices.int(),
        "seeds": pool[Key(0).fold("order").permutation(pool.numel())],
    }
    if graph.x is not None:
        arrays |= {"x": graph.x, "y": graph.y}
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values.numpy())
    done.write_text(json.dumps(facts) + "\n")
    return folder


def read(folder: Path) -> Graph:
    """An exported graph as graphdyn holds it; its seeds are the training nodes."""
    arrays = {path.stem: torch.from_numpy(np.load(path)) for path in folder.glob("*.npy")}
    indptr, pool = arrays["indptr"], arrays["seeds"]
    indptr = indptr.int() if int(indptr[-1]) < 2**31 else indptr
    csc = CSC(indptr, arrays["indices"], indptr.numel() - 1)
    x, y = arrays.get("x"), arrays.get("y")
    num_classes = 0 if y is None else int(y.max()) + 1
    return Graph(csc, x, y, Split(pool, pool[:0], pool[:0]), num_classes=num_classes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(GRAPHS), choices=list(GRAPHS))
    options = parser.parse_args()
    for name in options.only:
        print(export(GRAPHS[name](), options.folder / name))


if __name__ == "__main__":
    main()
