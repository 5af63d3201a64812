"""Dense algebra straight from the papers; imports nothing but torch and shares no code with graphdyn.

A graph is an edge list (2, E) in PyG's convention (row 0 sources, row 1 targets) on n nodes. A
model is a dictionary of its tensors by name (``p``) and a dictionary of options (``o``). Loops
over targets where a paper writes a sum over neighbours: slow and plain.
"""

import math

import torch


def with_loops(edges, n):
    """One loop for every node that has none; loops that exist stay."""
    looped = set(edges[0][edges[0] == edges[1]].tolist())
    missing = torch.tensor([v for v in range(n) if v not in looped], dtype=torch.long)
    return torch.cat([edges, torch.stack([missing, missing])], 1)


def adjacency(edges, n, norm="sym", loops=True, weight=None):
    """(n, n) float64, row v holds what v receives; parallel edges add up."""
    weight = torch.ones(edges.shape[1], dtype=torch.float64) if weight is None else weight.double()
    if loops:
        full = with_loops(edges, n)
        weight = torch.cat([weight, weight.new_ones(full.shape[1] - edges.shape[1])])
        edges = full
    a = torch.zeros(n, n, dtype=torch.float64)
    for (u, v), w in zip(edges.t().tolist(), weight.tolist()):
        a[v, u] += w
    degree = a.sum(1)
    if norm == "sym":
        scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
        return scale[:, None] * a * scale
    return a / degree.clamp(min=1e-300)[:, None] if norm == "mean" else a


def gcn(a, h, weight, bias):
    return a @ h @ weight.t() + bias


def sage_max(edges, h, n):
    rows = []
    for v in range(n):
        sources = edges[0][edges[1] == v]
        rows.append(h[sources].max(0).values if len(sources) else torch.zeros_like(h[0]))
    return torch.stack(rows)


def attention(edges, n, score, values, scale=None):
    """(n, H, F): softmax over the edges into each target; score(u, v) -> (H,)."""
    rows = []
    for v in range(n):
        ids = torch.nonzero(edges[1] == v).flatten().tolist()
        logits = torch.stack([score(int(edges[0, e]), v) for e in ids])
        if scale is not None:
            logits = logits + scale[ids].log()[:, None]
        alpha = torch.softmax(logits, 0)
        rows.append(sum(alpha[i][:, None] * values[int(edges[0, e])] for i, e in enumerate(ids)))
    return torch.stack(rows)


def gat(edges, n, h, weight, att_src, att_dst, bias, average, slope=0.2, scale=None):
    x = (h @ weight.t()).view(n, *att_src.shape)

    def score(u, v):
        e = (x[u] * att_src).sum(-1) + (x[v] * att_dst).sum(-1)
        return torch.where(e > 0, e, slope * e)

    out = attention(edges, n, score, x, scale)
    return (out.mean(1) if average else out.reshape(n, -1)) + bias


def gatv2(edges, n, x_src, x_dst, att, bias, average, slope=0.2, scale=None):
    x_src, x_dst = x_src.view(n, *att.shape), x_dst.view(n, *att.shape)

    def score(u, v):
        e = x_src[u] + x_dst[v]
        return (att * torch.where(e > 0, e, slope * e)).sum(-1)

    out = attention(edges, n, score, x_src, scale)
    return (out.mean(1) if average else out.reshape(n, -1)) + bias


def gcnii(a, h, h0, weight, alpha, theta, layer):
    beta = math.log(theta / layer + 1)
    s = (1 - alpha) * a @ h + alpha * h0
    return (1 - beta) * s + beta * s @ weight.t()


def norm(name, h, p):
    """The norms in training mode, over all rows; p holds weight, bias, mean_scale."""
    eps = 1e-5
    if name == "none":
        return h
    if name == "pair":
        c = h - h.mean(0)
        return c / torch.sqrt((c**2).sum() / len(h) + eps)
    if name == "layer":
        mean, var = h.mean(1, keepdim=True), h.var(1, unbiased=False, keepdim=True)
        return (h - mean) / torch.sqrt(var + eps) * p["weight"] + p["bias"]
    share = p["mean_scale"] if name == "graph" else 1.0
    c = h - share * h.mean(0)
    return c / torch.sqrt((c**2).mean(0) + eps) * p["weight"] + p["bias"]


def sub(p, prefix):
    """The tensors below a name."""
    return {k.removeprefix(prefix + "."): v for k, v in p.items() if k.startswith(prefix + ".")}


def stack(conv, count, x, p, o):
    """The trunk, each combination of options written out: (logits, hidden)."""
    sigma = {"relu": torch.relu, "elu": torch.nn.functional.elu, "none": lambda z: z}[
        o["activation"]
    ]

    def act(i, z):
        return sigma(norm(o["norm"], z, sub(p, f"norms.{i}")))

    def linear(name, z):
        return z @ p[f"{name}.weight"].t() + p[f"{name}.bias"]

    pre, skip = o["order"] == "pre", o["skip"]
    class_conv = "head.weight" not in p
    h, h0 = x, None
    if "encoder.weight" in p:
        h0 = linear("encoder", x)
        h0 = h0 if pre else sigma(h0)
        h = h0
    hidden, outputs = [], []
    for i in range(count):
        read = act(i, h) if pre else h
        outs = conv(i, read, h0)
        z = outs[-1]
        if class_conv and i == count - 1:
            h = z
        elif skip == "linear":
            z = z + read @ p[f"skips.{i}.weight"].t()
            h = z if pre else act(i, z)
        elif skip == "initial":
            z = (1 - o["skip_alpha"]) * z + o["skip_alpha"] * h0
            h = z if pre else act(i, z)
        elif skip == "identity" and h.shape == z.shape:
            if pre:
                z = h = z + h
            else:
                h = act(i, z) + h
        else:
            h = z if pre else act(i, z)
        hidden += [*outs[:-1], z]
        outputs.append(h)
    if class_conv:
        return h, hidden
    if pre:
        outputs = [act(i + 1, z) for i, z in enumerate(outputs)]
    last = outputs[-1]
    if skip == "dense-cat":
        last = torch.cat(outputs, 1)
    elif skip == "dense-max":
        last = torch.stack(outputs).amax(0)
    return linear("head", last), hidden


def model(name, edges, n, x, p, o):
    """Logits and hidden states of a whole model in training mode without dropout."""
    sym, mean = adjacency(edges, n), adjacency(edges, n, "mean", loops=False)
    plain, looped = adjacency(edges, n, "none", loops=False), with_loops(edges, n)
    count = o["layers"]
    class_conv = "head.weight" not in sub(p, "mlp") if name == "appnp" else "head.weight" not in p

    def conv(i, h, h0):
        q = sub(p, f"convs.{i}")
        average = class_conv and i == count - 1
        if name == "gcn":
            return [gcn(sym, h, q["lin.weight"], q["lin.bias"])]
        if name == "mlp" or (name == "sgc" and i):
            return [h @ q["lin.weight"].t() + q["lin.bias"]]
        if name == "sgc":
            outs = [
                torch.matrix_power(sym, k + 1) @ h @ q["lin.weight"].t() for k in range(o["hops"])
            ]
            return [*outs[:-1], outs[-1] + q["lin.bias"]]
        if name == "sage":
            kind = o["aggregator"]
            agg = (
                sage_max(edges, h, n) if kind == "max" else (mean if kind == "mean" else plain) @ h
            )
            return [agg @ q["lin_l.weight"].t() + q["lin_l.bias"] + h @ q["lin_r.weight"].t()]
        if name == "gat":
            heads = (q["lin.weight"], q["att_src"], q["att_dst"], q["bias"])
            return [gat(looped, n, h, *heads, average)]
        if name == "gatv2":
            x_src = h @ q["lin_l.weight"].t() + q["lin_l.bias"]
            x_dst = x_src
            if "lin_r.weight" in q:
                x_dst = h @ q["lin_r.weight"].t() + q["lin_r.bias"]
            return [gatv2(looped, n, x_src, x_dst, q["att"], q["bias"], average)]
        return [gcnii(sym, h, h0, q["weight"], o["alpha"], o["theta"], i + 1)]

    if name != "appnp":
        logits, hidden = stack(conv, count, x, p, o)
        return logits, [] if name == "mlp" else hidden[: o["hops"]] if name == "sgc" else hidden
    q = sub(p, "mlp")
    z0, _ = stack(
        lambda i, h, h0: [h @ q[f"convs.{i}.lin.weight"].t() + q[f"convs.{i}.lin.bias"]],
        count,
        x,
        q,
        o,
    )
    hidden = [z0]
    for _ in range(o["hops"]):
        hidden.append((1 - o["alpha"]) * sym @ hidden[-1] + o["alpha"] * z0)
    return hidden[-1], hidden[1:]
