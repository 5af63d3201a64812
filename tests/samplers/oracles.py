"""Dense algebra and averages over plans; from graphdyn nothing but what a plan holds is read.

A plan is applied as a linear network: z = F_L ... F_1 x. Sums in float64.
"""

import oracles
import torch

from graphdyn.keys import Key


def matrix(graph, propagation):
    """(N, N) float64 propagation matrix of the full graph."""
    edges, n = graph.edge_index, graph.num_nodes
    own, loops = propagation.norm, propagation.self_loops
    if own == "column":
        plain = oracles.adjacency(edges, n, "none", loops, graph.edge_weight)
        return plain / plain.sum(0).clamp(min=1e-300)
    return oracles.adjacency(edges, n, own, loops, graph.edge_weight)


def exact(graph, propagation, hops):
    """(N, F) float64: A^hops x."""
    return torch.linalg.matrix_power(matrix(graph, propagation), hops) @ graph.x.double()


def aggregate(block, h):
    """(D, F): F h of one block, by loop-free sums over its edges; h has a row for each source."""
    csc, values = block.adjacency.csc, block.adjacency.values
    out = torch.zeros(csc.num_dst, h.shape[1], dtype=torch.float64)
    message = h.double()[csc.indices.long()]
    message = message if values is None else values.double()[:, None] * message
    row = torch.repeat_interleave(torch.arange(csc.num_dst), csc.indptr.diff().long())
    return out.index_add_(0, row, message)


def node_ids(block):
    """(S,) global ids."""
    return torch.arange(block.num_src) if block.node_id is None else block.node_id


def output(plan, x):
    """The linear network: (B,) ids of the seeds and (B, F) estimates of A^L x there."""
    return plan.seeds, network(plan, x, len(plan.blocks))


def output_of(hops):
    """As :func:`output` for plans whose one block serves every one of ``hops`` layers."""
    return lambda plan, x: (plan.seeds, network(plan, x, hops))


def network(plan, x, hops):
    h = x[node_ids(plan.blocks[0])]
    for layer in range(hops):
        block = plan.blocks[0] if len(plan.blocks) == 1 else plan.blocks[layer]
        h = aggregate(block, h)
    return h[plan.rows]


def layer_output(layer):
    """One layer alone: (D,) ids of its targets and (D, F) estimates of A x there."""

    def estimate(plan, x):
        block = plan.blocks[layer]
        ids = node_ids(block)
        return ids[: block.num_dst], aggregate(block, x[ids])

    return estimate


def mean_estimate(plans, x, replicates, key=Key(0), estimate=output):
    """Mean over plans of a per-node estimate, given that the node is estimated at all.

    Args:
        plans: From ``prepare``; plan r is that of step r.
        x: (N, F) features.
        replicates: R.
        key: Seed and path.
        estimate: (plan, x) -> (ids, values), see :func:`output`.

    Returns:
        (N, F) means, (N, F) standard errors (infinite below two estimates), (N,) how many there were.
    """
    x = x.double()
    count = torch.zeros(len(x))
    total, square = torch.zeros_like(x), torch.zeros_like(x)
    for plan in replicate(plans, replicates, key):
        ids, values = estimate(plan, x)
        count.index_add_(0, ids, torch.ones(len(ids)))
        total.index_add_(0, ids, values)
        square.index_add_(0, ids, values**2)
    n = count.double()[:, None]
    mean = total / n.clamp(min=1)
    variance = (square / n.clamp(min=1) - mean**2).clamp(min=0) * n / (n - 1).clamp(min=1)
    error = torch.where(n > 1, (variance / n.clamp(min=1)).sqrt(), torch.inf)
    return mean, error, count


def loss_estimate(plans, phi, replicates, key=Key(0)):
    """Mean over plans of sum_i omega_i phi_i, and its standard error; phi is (N,)."""
    rows = [
        (plan.seed_weight.double() * phi.double()[plan.seeds]).sum()
        for plan in replicate(plans, replicates, key)
    ]
    values = torch.stack(rows)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def replicate(plans, replicates, key=Key(0)):
    """R plans of consecutive steps, epochs included."""
    for r in range(replicates):
        yield plans.plan(key.at(epoch=r // plans.num_batches, step=r))


def worst(mean, truth, error, rounding=1e-6):
    """Largest distance in standard errors; rounding of float32 weights is not counted as one."""
    distance = (torch.as_tensor(mean) - truth).abs().double()
    scale = 1 + torch.as_tensor(truth).abs().double()
    error = torch.as_tensor(error, dtype=torch.float64).clamp(min=1e-300)
    return float(((distance - rounding * scale).clamp(min=0) / error).max())
