"""torch-sparse's neighbour sampling with relabelling: what PyG's NeighborLoader calls without pyg-lib.

    PYTHON benchmarks/peers/torch_sparse_sampling.py FOLDER

One call draws all hops of a batch; a node is expanded once, at the hop where it is met first. The operator
is serial; threads beyond the first stay idle.
"""

import protocol
import torch
import torch_sparse  # noqa: F401  (registers the operator)


def main():
    options = protocol.parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    colptr = protocol.read(options.folder, "indptr", torch.int64)
    row = protocol.read(options.folder, "indices", torch.int64)
    batches = protocol.seed_batches(options, torch.int64)
    replace, directed = False, True

    def sample(i):
        node, _, _, edge = torch.ops.torch_sparse.neighbor_sample(
            colptr, row, batches[i], options.fanouts, replace, directed
        )
        return protocol.Size(edge.numel(), node.numel())

    result = protocol.time_batches(sample, options)
    protocol.answer(
        {"method": "neighbor"} | result, options, "torch-sparse", "torch-geometric", "numpy"
    )


if __name__ == "__main__":
    main()
