"""Draw one epoch of batches with torch-sparse and keep them, for a training loop that is timed without sampling.

    PYTHON benchmarks/peers/pyg_batches.py FOLDER OUT [--batches 0]

Each batch is an .npz of int32 arrays: n_id, row, col (local source and target of each edge), nodes_per_hop and
edges_per_hop. Nodes and edges stand in the order of the hops, as ``trim_to_layer`` wants them.
"""

from pathlib import Path

import numpy as np
import protocol
import torch


def hops(num_seeds: int, num_hops: int, row: np.ndarray, col: np.ndarray):
    """(nodes per hop with the seeds first, edges per hop). Targets ascend, because nodes are expanded in order."""
    nodes, edges, end, done = [num_seeds], [], num_seeds, 0
    for _ in range(num_hops):
        last = int(np.searchsorted(col, end))
        fresh = max(end, int(row[done:last].max(initial=-1)) + 1)
        edges.append(last - done)
        nodes.append(fresh - end)
        end, done = fresh, last
    return np.array(nodes, np.int32), np.array(edges, np.int32)


def main():
    import torch_sparse  # noqa: F401  (registers the operator)

    parser = protocol.parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.set_defaults(batches=0)
    options = parser.parse_args()
    colptr = protocol.read(options.folder, "indptr", torch.int64)
    indices = protocol.read(options.folder, "indices", torch.int64)
    seeds = protocol.read(options.folder, "seeds", torch.int64)
    options.out.mkdir(parents=True, exist_ok=True)
    batches = seeds.split(options.batch_size)
    for i, batch in enumerate(batches[: options.batches or None]):
        drawn = torch.ops.torch_sparse.neighbor_sample(
            colptr, indices, batch, options.fanouts, False, True
        )
        n_id, row, col = (t.numpy().astype(np.int32) for t in drawn[:3])
        nodes, edges = hops(batch.numel(), len(options.fanouts), row, col)
        arrays = {"n_id": n_id, "row": row, "col": col}
        np.savez(options.out / f"{i:05}.npz", **arrays, nodes_per_hop=nodes, edges_per_hop=edges)
    protocol.answer({"batches": len(batches), "folder": str(options.out)}, options, "torch-sparse")


if __name__ == "__main__":
    main()
