"""DGL GraphBolt's neighbour and layer-neighbour (LABOR-0) sampling with relabelling, in its own environment.

    PYTHON benchmarks/peers/graphbolt_sampling.py FOLDER [--method neighbor|labor] [--dtype int32|int64]
                                                  [--route direct|datapipe] [--threads 1]

``direct`` calls, per layer, what its data pipe stages call (``sample_neighbors`` or
``sample_layer_neighbors``, then ``unique_and_compact_csc_formats``), and nothing besides; ``datapipe`` is
its NeighborSampler or LayerNeighborSampler as documented. Edge ids are not asked for, which spares it work.
"""

import itertools
import warnings

import torch

warnings.filterwarnings("ignore")
import dgl.graphbolt as gb  # noqa: E402
import protocol  # noqa: E402


def direct(graph, method, fanouts, batches):
    draw = {"neighbor": graph.sample_neighbors, "labor": graph.sample_layer_neighbors}[method]
    sizes = [torch.LongTensor([k]) for k in fanouts]

    def sample(i):
        nodes, edges, blocks = batches[i], 0, []
        for fanout in sizes:
            drawn = draw(nodes, fanout).sampled_csc
            nodes, block = gb.unique_and_compact_csc_formats(drawn, nodes)
            blocks.insert(0, block)
            edges += block.indices.numel()
        return protocol.Size(edges, nodes.numel())

    return sample


def datapipe(graph, method, fanouts, batches):
    seeds, size = torch.cat(batches), batches[0].numel()
    items = gb.ItemSampler(gb.ItemSet(seeds, names="seed_nodes"), batch_size=size)
    kind = {"neighbor": gb.NeighborSampler, "labor": gb.LayerNeighborSampler}[method]
    # Its fan-outs are listed from the input side, and it starts at the seeds with the last one.
    stream = iter(
        itertools.chain.from_iterable(itertools.repeat(kind(items, graph, fanouts[::-1])))
    )

    def sample(_):
        batch = next(stream)
        edges = sum(block.sampled_csc.indices.numel() for block in batch.sampled_subgraphs)
        return protocol.Size(edges, batch.input_nodes.numel())

    return sample


def main():
    parser = protocol.parser(__doc__)
    parser.add_argument("--method", choices=["neighbor", "labor"], default="neighbor")
    parser.add_argument("--dtype", choices=["int32", "int64"], default="int32")
    parser.add_argument("--route", choices=["direct", "datapipe"], default="direct")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    graph = gb.fused_csc_sampling_graph(
        protocol.read(options.folder, "indptr", dtype),
        protocol.read(options.folder, "indices", dtype),
    )
    batches = protocol.seed_batches(options, dtype)
    route = {"direct": direct, "datapipe": datapipe}[options.route]
    result = protocol.time_batches(route(graph, options.method, options.fanouts, batches), options)
    choice = {"method": options.method, "dtype": options.dtype, "route": options.route}
    protocol.answer(choice | result, options, "dgl", "numpy")


if __name__ == "__main__":
    main()
