"""A slow second implementation of the model in plain Python: one design, f64, tau = 0, ifs and loops.

It shares nothing with the package but the trees it reads numbers from. Closed forms of the package are sums here.
"""

import math


def ceil(a, b):
    return float(math.ceil(a / b - 1e-12))


def window_sum(q, c, w):
    if (
        q != int(q) or c != int(c) or q > 5000
    ):  # a mean context may end in a half: then the sum is interpolated
        n = min(max(w - c, 0), q)
        return n * c + n * (n + 1) / 2 + (q - n) * w
    return math.fsum(min(c + i, w) for i in range(1, int(q) + 1))


def distinct(experts, k, tokens, skew):
    if k >= experts:
        return experts * min(max(tokens, 0.0), 1.0)
    miss = 1 - k / experts
    if skew <= 0:
        return experts * -math.expm1(tokens * math.log1p(-k / experts))
    return experts * (1 - (1 + tokens * (miss**-skew - 1)) ** (-1 / skew))


def rate(compute, bits):
    for bound, value in (
        (5, compute.flops_4),
        (7, compute.flops_6),
        (10, compute.flops_8),
        (20, compute.flops_16),
    ):
        if bits < bound:
            return value
    return compute.flops_32


def width(bits):
    return next((w for bound, w in ((5, 4), (7, 6), (10, 8), (20, 16)) if bits < bound), 32)


NEVER = 1e6


def log2_ceil(n):
    rounds = 0
    while 2**rounds < n * (1 - 1e-9):
        rounds += 1
    return rounds


class Place:
    """n ranks on one level of a fabric: rounds, hops and loads, counted side by side and tier by tier."""

    NAMES = ("ring", "full", "switch", "fat", "tree", "torus", "mesh", "cube", "dragonfly")

    def __init__(self, link, n, level):
        self.n, self.kind = n, self.NAMES[round(link.topology)]
        self.sides, self.tiers, self.branches, self.narrowing = [], 1, n, 1.0
        self.grid = self.kind in ("ring", "torus", "mesh", "cube")
        self.treelike = self.kind in ("switch", "fat", "tree")
        bits = log2_ceil(n)
        if self.grid:
            d = {"ring": 1, "cube": max(bits, 1)}.get(self.kind, round(link.dimensions))
            if abs(n - 2**bits) < 1e-6:
                self.sides = [2.0 ** (bits // d + (1 if i < bits % d else 0)) for i in range(d)]
            else:
                q = n ** (1 / d)
                self.sides = [float(round(q)) if abs(q - round(q)) < 1e-4 * q else q] * d
        self.wrapped = self.kind in ("ring", "torus") and n > level - 0.5
        if self.kind in ("fat", "tree"):
            self.tiers = max(1, math.ceil(math.log(max(n, 1)) / math.log(max(link.radix, 2)) - 1e-4))
            self.branches = n ** (1 / self.tiers)
            self.narrowing = self.branches if self.kind == "tree" else 1 / link.taper
        self.group = min(max(link.radix, 2), n)
        self.groups = n / self.group

    def ports(self):
        n = self.n
        if n <= 1:
            return 0.0
        if self.grid:
            return sum(min(q - 1, 2 if self.wrapped else 1) for q in self.sides)
        if self.kind == "full":
            return n - 1
        return 1.0 if self.treelike else self.group - 1 + math.ceil((self.groups - 1) / self.group)

    def diameter(self):
        if self.n <= 1:
            return 0.0
        if self.grid:
            return sum(math.floor(q / 2) if self.wrapped else q - 1 for q in self.sides)
        if self.kind == "full":
            return 1.0
        return 2.0 * self.tiers if self.treelike else (3.0 if self.groups > 1 and self.group > 1 else 1.0)

    def mean_hops(self):
        n = self.n
        if n <= 1:
            return 0.0
        if self.grid:
            each = [math.floor(q * q / 4) / q if self.wrapped else (q * q - 1) / (3 * q) for q in self.sides]
            return sum(each) * n / max(n - 1, 1)
        if self.kind == "full":
            return 1.0
        if self.treelike:
            r, h = self.branches, self.tiers
            return 2 * sum(1 - (r**tier - 1) / max(n - 1, 1) for tier in range(h))
        a = self.group
        return ((a - 1) + (n - a) * (3 - 2 / a)) / max(n - 1, 1)

    def busiest(self):
        """Messages over the busiest link when every rank sends one to every other."""
        n, r, h, s = self.n, self.branches, self.tiers, self.narrowing
        if n <= 1:
            return 0.0
        if self.grid:
            longest = max(self.sides)
            ways = min(longest - 1, 2 if self.wrapped else 1)
            even = abs(longest / 2 - math.floor(longest / 2)) == 0
            cut = (n / longest if even else (n - 1) / max(longest - 1, 1)) * ways
            return math.floor(n / 2) * math.ceil(n / 2) / cut
        if self.treelike:
            return max(n - 1, n * (1 - 1 / r) * s ** (h - 1))
        return 1.0 if self.kind == "full" or self.groups <= 1 else self.group**2

    def ring(self):
        n = self.n
        if self.grid:
            steps = sum(q - 1 for q in self.sides)
            hops = steps if self.wrapped else sum(2 * (q - 1) - min(q - 1, 1) for q in self.sides)
            return steps, hops, max(self.ports(), 1)
        if self.treelike:
            r = self.branches
            cycle = 2 * (n - 1) * r / (r - 1) if r != 1 else 2 * (n - 1)
            return n - 1, cycle - 2, 1
        ports = 2 * math.floor((n - 1) / 2) if self.kind == "full" else min(n - 1, 2)
        return n - 1, n - 1, max(ports, 1)

    def doubling(self):
        n, r, h, s = self.n, self.branches, self.tiers, self.narrowing
        rounds = log2_ceil(n)
        if self.grid:
            steps, q = sum(q - 1 for q in self.sides), max(*self.sides, 2.0)
            return rounds, steps, steps, max(math.log2(max(self.sides)), 1) / 2 * (1 - 1 / n) / (1 - 1 / q)
        if self.kind == "full":
            return rounds, rounds, rounds, (n - 1) / n
        if self.treelike:
            doubled = rounds / h * sum(s**tier for tier in range(h))
            halved = (1 - 1 / r) * sum((s / r) ** tier for tier in range(h))
            return rounds, rounds * (h + 1), doubled, halved
        inside, outside = math.log2(self.group), math.log2(self.groups)
        halved = 1 - 1 / self.group + 1 - 1 / self.groups
        return rounds, inside + 3 * outside, inside + self.group * outside, halved


class Network:
    """The three levels of a system's fabric."""

    def __init__(self, system):
        f, self.chip = system.fabric, system.chip
        self.fabric = f
        self.links = (f.package, f.scale_up, f.scale_out)
        package = min(f.package_chips, system.chips)
        domain = min(max(f.domain, package), max(system.chips, package))
        self.sizes = (package, domain / package, system.chips / domain)
        built = max(f.domain, f.package_chips) / max(f.package_chips, 1)
        self.costs = []
        for link, size, wired in zip(self.links, self.sizes, (f.package_chips, built, 0.0), strict=True):
            whole = max(wired, size)
            links = max(Place(link, whole, whole).ports(), 1)
            busy = min(max(link.background, 0.0), 0.999)
            per_byte = wait = 0.0
            if link.bandwidth:
                per_byte = 1 / (link.bandwidth * self.chip.efficiency.link * (1 - busy))
                per_byte = max(per_byte, (1 - link.sram_landing) * 2 / self.chip.memory.bandwidth)
                wait = busy / (2 * (1 - busy)) * f.background_message * links / link.bandwidth
            self.costs.append(
                (
                    link.overhead + (1 - link.sram_landing) * 2 * self.chip.memory.latency,
                    link.latency + wait,
                    per_byte * links,
                )
            )

    def counts(self, ranks, stride=1.0, repeats=1.0, every=1.0):
        def within(chips):
            return min(max(chips / stride, 1), ranks) * min(max(chips / every, 1), repeats)

        inner = within(max(self.fabric.package_chips, 1))
        both = max(within(max(self.fabric.domain, self.fabric.package_chips)), inner)
        return inner, both / inner, ranks * repeats / both

    def wait(self, ranks):
        f = self.fabric
        if ranks <= 1 or f.jitter == 0:
            return 0.0
        if f.timeout == 0:
            m = ranks + 0.5 + 1 / (24 * ranks + 12)
            return f.jitter * (0.5772156649015329 + math.log(m))
        u = 1 - math.exp(-f.timeout / f.jitter)
        return f.jitter * math.fsum(u**k / k for k in range(1, round(ranks) + 1))

    def start(self, counts):
        ranks = counts[0] * counts[1] * counts[2]
        return sum(link.launch for link, n in zip(self.links, counts, strict=True) if n > 1) + self.wait(
            ranks
        )

    def adds(self, k):
        return self.links[k].in_network > 0.5 and round(self.links[k].topology) in (2, 3, 4)

    def times(self, k, n, size):
        """(gather, all-reduce, all-reduce in few rounds) on one level."""
        if n <= 1:
            return 0.0, 0.0, 0.0
        place, (o, t, b) = Place(self.links[k], n, self.sizes[k]), self.costs[k]
        far, cross = o + place.diameter() * t, place.busiest()
        rounds, hops, ports = place.ring()
        lg, lg_hops, doubled, halved = place.doubling()
        ring = rounds * o + hops * t + size * (n - 1) / n / ports * b
        halving = lg * o + lg_hops * t + size * halved * b
        direct = far + size * cross / n * b
        quick = [lg * o + lg_hops * t + size * doubled * b, far + size * cross * b]
        options = [2 * ring, 2 * halving, 2 * direct]
        if place.treelike:
            options.append(2 * (lg * o + lg_hops * t) + 2 * size * b)
        if self.adds(k):
            quick.append(far + size * b)
        return min(ring, halving, direct), min(options + quick), min(quick)

    def neighbour(self, k, n):
        place = Place(self.links[k], n, self.sizes[k])
        return place.ring()[1] / (n - 1) if place.treelike and n > 1 else 1.0

    def all_reduce(self, size, counts, scattered=False):
        if counts[0] * counts[1] * counts[2] <= 1:
            return 0.0, (0.0, 0.0, 0.0)
        used = [k for k in range(3) if counts[k] > 1]
        held, shares, everything, sent = size, 0.0, 0.0, [0.0, 0.0, 0.0]
        for k, n in enumerate(counts):
            if n <= 1:
                continue
            gather, reduce, _ = self.times(k, n, held)
            last = k == used[-1] and not scattered
            shares += reduce if last else 2 * gather
            everything += self.times(k, n, size)[2]
            once = self.adds(k) and last
            sent[k] = (held if once else 2 * (held - held / n)) * self.neighbour(k, n)
            held /= n
        seconds = min(shares, everything) if len(used) > 1 and not scattered else shares
        return (2 if scattered else 1) * self.start(counts) + seconds, tuple(sent)

    def all_to_all(self, sizes, counts, hottest):
        if counts[0] * counts[1] * counts[2] <= 1:
            return 0.0, (0.0, 0.0, 0.0)
        seconds, sent = self.start(counts), [0.0, 0.0, 0.0]
        for k, (n, size) in enumerate(zip(counts, sizes, strict=True)):
            if n > 1:
                place, (o, t, b) = Place(self.links[k], n, self.sizes[k]), self.costs[k]
                seconds += o + place.diameter() * t + size * hottest * place.busiest() / max(n - 1, 1) * b
                sent[k] = size * place.mean_hops()
        return seconds, tuple(sent)

    def neighbour_message(self, size, span):
        f = self.fabric
        k = 0 if span <= f.package_chips else 1 if span <= max(f.domain, f.package_chips) else 2
        place, (o, t, b) = Place(self.links[k], self.sizes[k], self.sizes[k]), self.costs[k]
        hops = place.diameter() if place.treelike else 1
        sent = [0.0, 0.0, 0.0]
        sent[k] = size * hops
        return self.links[k].launch + o + hops * t + size * b, tuple(sent)


def copies(groups, experts, k):
    """Expected number of groups of experts that a token's k choices fall into."""
    missed = min(max(1 - experts / groups / max(experts - (k - 1) / 2, 1), 1e-9), 1.0)
    return groups * (1 - missed**k)


def hottest(ranks, picks, experts, skew):
    if ranks <= 1:
        return 1.0
    c = (skew * ranks / max(experts, 1) + ranks / max(picks, 1e-6)) * (1 - 1 / ranks) / 9
    x = math.sqrt(-2 * math.log(0.625 / (ranks + 0.25)))
    z = x - (2.30753 + 0.27061 * x) / (1 + 0.99229 * x + 0.04481 * x * x)
    return min(max((1 - c + z * math.sqrt(c)) ** 3, 1), ranks)


class Cut:
    """What one chip holds."""

    def __init__(self, model, plan):
        t, d, x, la = plan.tp, model.hidden, model.experts, model.latent
        self.heads = ceil(model.attention.heads, t)
        self.kv = ceil(model.attention.kv_heads, t)
        self.lheads = ceil(la.heads, t)
        self.lq = self.lheads * (la.nope_dim + la.rope_dim)
        self.down = d * (la.kv_rank + la.rope_dim)
        self.down += d * la.query_rank + la.query_rank * self.lq if la.query_rank > 0 else d * self.lq
        self.up = la.kv_rank * self.lheads * (la.nope_dim + la.value_dim)
        self.state = ceil(model.recurrence.heads, t) / model.recurrence.heads
        self.ff = ceil(model.feed_forward.width, t)
        self.xw = ceil(x.width, t / plan.ep if plan.ep < t else 1.0)
        self.xp = x.matrices * d * self.xw
        self.held = ceil(x.experts, plan.ep)
        self.shared = ceil(x.shared_width, t)
        self.vocab = ceil(model.vocabulary, t)
        self.encoder = model.encoder_parameters / t
        draft = plan.draft_parameters if plan.draft_parameters > 0 else model.draft_parameters
        self.draft = draft / t if plan.draft_length > 0 else 0.0
        self.joined = plan.ep / t if plan.ep > t else 1.0
        a = model.attention
        layers = max(
            a.full_layers + a.window_layers + la.layers + model.recurrence.layers,
            model.feed_forward.layers + x.layers,
        )
        self.stage = ceil(layers, plan.pp) / layers


def attention_width(cut, a, la):
    return max(cut.heads * a.head_dim, cut.lheads * la.value_dim)


def step(system, model, plan, cut, groups):
    """groups: dicts with B, q, c, logits, absorbed, encoder, drafts. Returns (seconds by op, energy by part)."""
    chip, d, a, la, r, x = (
        system.chip,
        model.hidden,
        model.attention,
        model.latent,
        model.recurrence,
        model.experts,
    )
    wb, eb, kb, ab = plan.weight_bits / 8, plan.expert_bits / 8, plan.kv_bits / 8, plan.activation_bits / 8
    dense, kept = 1 - plan.weight_sparsity, 1 - plan.activation_sparsity
    m = sum(g["B"] * g["q"] for g in groups)
    ops = {}

    def op(name, count, flops=0.0, vector=0.0, exps=0.0, moved=0.0, bits=plan.weight_bits):
        ops[name] = (count, flops, vector, exps, moved, max(bits, plan.activation_bits))

    def linear(name, count, tokens, params, n_in, n_out, exps=0.0, more=0.0):
        moved = params * wb * dense + tokens * (n_in + n_out) * ab + more
        op(name, count, 2 * tokens * params * dense, exps=exps, moved=moved)

    layers = a.full_layers + a.window_layers
    own = 1 - (a.shared_layers / layers if layers else 0.0)
    qw, kvw = cut.heads * a.head_dim, 2 * cut.kv * a.head_dim
    pairs = {"full": 0.0, "window": 0.0}
    keys = {"full": 0.0, "window": 0.0}
    absorbed_pairs = absorbed_tokens = expanded = 0.0
    for g in groups:
        span = g["q"] if model.diffusion_block > 0 else (g["q"] + 1) / 2
        p = g["B"] * g["q"] * (g["c"] + span)
        pairs["full"] += p
        if model.diffusion_block > 0:
            pairs["window"] += g["B"] * g["q"] * min(g["c"] + g["q"], a.window)
        else:
            pairs["window"] += g["B"] * window_sum(g["q"], g["c"], a.window)
        keys["full"] += g["B"] * (g["c"] + g["q"])
        keys["window"] += g["B"] * min(g["c"] + g["q"], a.window + g["q"] - 1)
        absorbed_pairs += p * g["absorbed"]
        absorbed_tokens += g["B"] * g["q"] * g["absorbed"]
        expanded += g["B"] * (g["c"] + g["q"]) * (1 - g["absorbed"])
    op("embedding", 1, moved=m * d * wb + m * d * ab)
    out = qw * a.query_outputs + kvw * own
    linear("attention_qkv", layers, m, d * out, d, out, more=m * kvw * own * kb / plan.cp)
    for kind, count in (("full", a.full_layers), ("window", a.window_layers)):
        op(
            f"attention_{kind}",
            count,
            4 * qw * pairs[kind] / plan.cp,
            4 * cut.heads * pairs[kind] / plan.cp,
            cut.heads * pairs[kind] / plan.cp,
            keys[kind] * kvw * kb / plan.cp + 2 * m * qw * ab,
            plan.kv_bits,
        )
    linear("attention_out", layers, m, qw * d, qw, d)
    wide = cut.lheads * (la.nope_dim + la.value_dim)
    op(
        "latent_qkv",
        la.layers,
        2 * (m * cut.down + (absorbed_tokens + expanded) * cut.up) * dense,
        moved=(cut.down + cut.up) * wb * dense
        + m * (la.kv_rank + la.rope_dim) * kb / plan.cp
        + (m * (2 * d + cut.lq) + 2 * expanded * wide) * ab,
    )
    per_pair = absorbed_pairs * (2 * la.kv_rank + la.rope_dim)
    per_pair += (pairs["full"] - absorbed_pairs) * (la.nope_dim + la.rope_dim + la.value_dim)
    op(
        "latent_attention",
        la.layers,
        2 * cut.lheads * per_pair / plan.cp,
        4 * cut.lheads * pairs["full"] / plan.cp,
        cut.lheads * pairs["full"] / plan.cp,
        keys["full"] * (la.kv_rank + la.rope_dim) * kb / plan.cp
        + m * (cut.lq + cut.lheads * la.value_dim) * ab,
        plan.kv_bits,
    )
    linear("latent_out", la.layers, m, cut.lheads * la.value_dim * d, cut.lheads * la.value_dim, d)
    inner, state = r.inner_dim * cut.state, r.state * cut.state
    linear("recurrence_projections", r.layers, m, r.parameters * cut.state, 2 * d, 3 * inner)
    held = state * r.state_bits / 8 + r.convolution_state * cut.state * ab
    op(
        "recurrence_state",
        r.layers,
        m * state * r.matmul_flops,
        m * state * r.vector_flops,
        m * state * r.exponentials,
        2 * sum(g["B"] for g in groups) * held + 3 * m * inner * ab,
    )
    touched = 1 - plan.activation_sparsity**m if plan.activation_sparsity > 0 else 1.0

    def mix(name, count, w, matrices):
        params = matrices * d * w
        op(
            name,
            count,
            2 * m * params * dense * kept,
            2 * m * w * kept,
            m * w * kept * model.activation_exponentials,
            params * wb * dense * touched + m * (2 * d + matrices * w * kept) * ab,
        )

    mix("feed_forward", model.feed_forward.layers, cut.ff, model.feed_forward.matrices)
    linear("router", x.layers, m, d * x.experts, d, x.experts, exps=m * x.experts)
    routed = m * cut.joined * x.top_k / plan.ep
    op(
        "routed_experts",
        x.layers,
        2 * routed * cut.xp * dense * kept,
        2 * routed * cut.xw * kept,
        routed * cut.xw * kept * model.activation_exponentials,
        distinct(x.experts, x.top_k, m * cut.joined, x.skew) / plan.ep * cut.xp * eb * dense * touched
        + routed * (2 * d + x.matrices * cut.xw * kept) * ab,
        plan.expert_bits,
    )
    mix("shared_experts", x.layers, cut.shared, x.matrices)
    norm = m / (plan.tp if plan.sequence_parallel > 0.5 else 1.0)
    op("norms", model.norms, vector=6 * norm * d, moved=4 * norm * d * ab)
    logits = sum(g["B"] * g["logits"] for g in groups)
    linear("output_head", 1.0, logits, d * cut.vocab, d, cut.vocab)
    op("sampling", 1, vector=4 * logits * cut.vocab, exps=logits * cut.vocab, moved=logits * cut.vocab * ab)
    encoder = sum(g["B"] * g["encoder"] for g in groups)
    linear("encoder", min(encoder, 1.0), encoder, cut.encoder, 2 * d, 2 * d)
    linear(
        "draft",
        sum(g["drafts"] for g in groups),
        sum(g["B"] for g in groups if g["drafts"]),
        cut.draft,
        2 * d,
        2 * d,
    )

    share = chip.efficiency
    seconds, energy = {}, {"matmul": 0.0, "vector": 0.0, "memory": 0.0, "network": 0.0}
    for name, (count, flops, vector, exps, moved, bits) in ops.items():
        legs = (
            flops / (rate(chip.compute, bits) * share.matmul),
            vector / (chip.compute.vector_flops * share.vector),
            exps / (chip.compute.exponentials * share.vector),
            moved / (chip.memory.bandwidth * share.memory),
        )
        seconds[name] = count * (max(legs) + share.operator_overhead)
        energy["matmul"] += count * flops * chip.energy_per_flop * width(bits) / 16
        energy["vector"] += count * (
            vector * chip.energy_per_vector_flop + exps * chip.energy_per_exponential
        )
        energy["memory"] += count * moved * (chip.memory.energy_per_byte + chip.on_chip_energy_per_byte)

    stream = m * d * ab
    mixers = layers + la.layers
    net = Network(system)
    tensor = net.counts(plan.tp)
    experts = net.counts(plan.tp, 1.0, cut.joined, plan.tp * plan.cp * plan.pp)
    ways = [(experts[0] * experts[1] * experts[2], 0), (experts[1] * experts[2], 1), (experts[2], 2)]
    share = [copies(g, x.experts, x.top_k) * (experts[k] - 1) / experts[k] for g, k in ways]
    peak = hottest(plan.ep, m * cut.joined * x.top_k, x.experts, x.skew)
    back = max(plan.activation_bits, 16) / 8
    routed = 1.0 * x.layers if cut.joined > 1 else 0.0

    def routing(element):
        return net.all_to_all([m * d * element / plan.tp * y for y in share], experts, peak)

    messages = {
        "tensor_all_reduce": (
            (mixers + r.layers + model.feed_forward.layers + x.layers) if plan.tp > 1 else 0.0,
            net.all_reduce(stream, tensor, plan.sequence_parallel > 0.5),
        ),
        "expert_dispatch": (routed, routing(ab)),
        "expert_combine": (routed, routing(back)),
        "context_all_reduce": (
            mixers if plan.cp > 1 else 0.0,
            net.all_reduce(m * attention_width(cut, a, la) * ab, net.counts(plan.cp, plan.tp)),
        ),
        "pipeline_send": (plan.pp - 1, net.neighbour_message(stream, plan.tp * plan.cp * plan.pp)),
    }
    busy = math.fsum(seconds.values())
    for name, (count, (took, sent)) in messages.items():
        seconds[name] = count * took
        for size, link in zip(sent, net.links, strict=True):
            energy["network"] += count * size * link.energy_per_byte
    hidden = chip.efficiency.overlap * min(busy, math.fsum(seconds[name] for name in messages))
    return seconds, energy, hidden


def evaluate(system, model, traffic, plan, prices):
    chip, cut = system.chip, Cut(model, plan)
    parts = plan.microbatches if plan.microbatches > 0 else plan.pp
    interval = max(parts, plan.pp) * cut.stage
    B = ceil(traffic.batch, plan.dp * parts)
    context = traffic.prompt + traffic.retrieved + traffic.encoder_tokens
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    computed = context - cached
    block = model.diffusion_block
    if block > 0:
        first, q, gained = block, block, block / model.diffusion_steps
    else:
        first, q = 1.0, 1 + plan.draft_length
        gained = math.fsum(plan.acceptance**i for i in range(int(plan.draft_length) + 1))
    steps = max(traffic.output - first, 0.0) / gained
    decode = {
        "B": B,
        "q": q,
        "c": context + max(traffic.output - first - 1, 0.0) / 2,
        "logits": q,
        "absorbed": plan.absorb_decode,
        "encoder": 0.0,
        "drafts": plan.draft_length,
    }
    positions = traffic.encoder_tokens * model.encoder_ratio
    prefill = {"logits": 1.0, "absorbed": plan.absorb_prefill, "drafts": 0.0}
    if plan.chunk > 0:
        chunk = min(plan.chunk, computed)
        chunks = ceil(computed, chunk)
        prefill |= {
            "B": 1.0,
            "q": chunk,
            "c": cached + (computed - chunk) / 2,
            "encoder": positions * chunk / computed,
        }
        groups = [prefill, decode]
    else:
        prefill |= {"B": B, "q": computed, "c": cached, "encoder": positions}
        groups = [prefill]
    first_step, first_energy, first_hidden = step(system, model, plan, cut, groups)
    next_step, next_energy, next_hidden = step(system, model, plan, cut, [decode])
    t0, t1 = math.fsum(first_step.values()) - first_hidden, math.fsum(next_step.values()) - next_hidden
    chips = plan.tp * plan.pp * plan.cp * plan.dp
    warm = model.diffusion_steps if block > 0 else 0.0
    if plan.chunk > 0:
        steps = max(steps, 1.0)
        mixed = B * chunks / steps
        pure = max(1 - mixed, 0.0)
        ttft, separate = (chunks * t0 + warm * t1) * interval, 0.0
        runs = steps * mixed
    else:
        mixed, pure, separate = 0.0, 1.0, (parts + plan.pp - 1) * cut.stage
        ttft, runs = separate * t0 + warm * t1 * interval, 1.0
    tpot = (mixed * t0 + pure * t1) * interval / gained
    total = separate * t0 + warm * t1 * interval + steps * gained * tpot
    tokens = traffic.batch * traffic.output
    per_second = tokens / total
    energy = {
        k: (runs * first_energy[k] + (steps * pure + warm) * next_energy[k])
        * chips
        * parts
        / plan.pp
        / tokens
        for k in first_energy
    }
    chip_seconds = chips / per_second
    energy["idle"] = chip_seconds * chip.idle_power
    energy["host"] = chip_seconds * system.host.power
    joules = math.fsum(energy.values())
    away = system.chips * system.failure_rate * system.repair_time
    up = math.fsum(math.exp(-away) * away**k / math.factorial(k) for k in range(int(system.spares) + 1))
    up /= 1 + system.chips * system.failure_rate * system.switchover_time
    paid = chip_seconds * (1 + system.spares / system.chips) / up
    unused = paid / prices.utilization - chip_seconds
    metered = (joules + unused * (chip.idle_power + system.host.power)) * prices.pue
    owned = 1e6 * paid / prices.utilization
    usd = {
        "chips": owned * chip.price / prices.lifetime,
        "hosts": owned * system.host.price / prices.lifetime,
        "maintenance": owned * (chip.price + system.host.price) * prices.maintenance,
        "datacenter": owned
        * (chip.tdp + system.host.power)
        * prices.pue
        * prices.datacenter
        / prices.datacenter_lifetime,
        "electricity": 1e6 * metered * prices.electricity,
    }
    worn = 1e9 * paid / (prices.utilization * prices.lifetime)
    carbon = {
        "operation": 1e9 * metered * prices.grid_carbon,
        "dies": worn * chip.die_area * chip.carbon_per_area,
        "memory": worn * chip.memory.capacity * chip.memory.carbon_per_byte,
        "hosts": worn * system.host.carbon,
    }
    memory = held(model, plan, cut, traffic, context, max(sum(g["B"] * g["q"] for g in groups), B * q))
    used = math.fsum(memory.values())
    power = chip.idle_power + max(math.fsum(first_energy.values()) / t0, math.fsum(next_energy.values()) / t1)
    out = {
        "ttft": ttft,
        "tpot": tpot,
        "latency": ttft + steps * gained * tpot,
        "tokens_per_second": per_second,
        "joules_per_token": joules,
        "usd_per_mtok": math.fsum(usd.values()),
        "gco2e_per_mtok": math.fsum(carbon.values()),
        "margins.memory": 1 - used / chip.memory.capacity,
        "margins.chips": 1 - chips / system.chips,
        "margins.power": 1 - power / chip.tdp,
        "margins.ttft": 1 - ttft / traffic.ttft_target if traffic.ttft_target else 1.0,
        "margins.tpot": 1 - tpot / traffic.tpot_target if traffic.tpot_target else 1.0,
    }
    for part, values in (("energy", energy), ("usd", usd), ("carbon", carbon), ("memory", memory)):
        out |= {f"{part}.{k}": v for k, v in values.items()}
    f = system.fabric
    late = 0.0
    if f.timeout > 0 and f.jitter > 0:
        a = model.attention
        mixers = a.full_layers + a.window_layers + model.latent.layers
        blocks = mixers + model.recurrence.layers + model.feed_forward.layers + model.experts.layers
        meetings = blocks * (1 + round(plan.sequence_parallel)) * plan.tp if plan.tp > 1 else 0.0
        meetings += 2 * model.experts.layers * plan.tp * cut.joined if cut.joined > 1 else 0.0
        meetings += mixers * plan.cp if plan.cp > 1 else 0.0
        late = 1 - (1 - math.exp(-f.timeout / f.jitter)) ** meetings
    out["reliability.stale_tokens"], out["reliability.availability"] = late, up
    out |= {f"prefill.{k}.seconds": v for k, v in first_step.items()}
    out |= {f"decode.{k}.seconds": v for k, v in next_step.items()}
    return out


def held(model, plan, cut, traffic, context, widest_step):
    a, la, r, x, d = model.attention, model.latent, model.recurrence, model.experts, model.hidden
    layers = a.full_layers + a.window_layers
    qw, kvw = cut.heads * a.head_dim, 2 * cut.kv * a.head_dim
    blocks = layers * d * qw * (a.query_outputs + 1) + (layers - a.shared_layers) * d * kvw
    blocks += la.layers * (cut.down + cut.up + cut.lheads * la.value_dim * d)
    blocks += r.layers * r.parameters * cut.state
    blocks += model.feed_forward.layers * model.feed_forward.matrices * d * cut.ff
    blocks += x.layers * ((d * x.experts if x.experts > 1 else 0.0) + x.matrices * d * cut.shared)
    tables = cut.vocab * d * (2 - model.tied) + model.table_parameters
    other = model.small_parameters + cut.encoder + cut.draft
    kept = 1 - plan.weight_sparsity
    length = context + traffic.output
    own = 1 - (a.shared_layers / layers if layers else 0.0)
    cache = own * (a.full_layers * length + a.window_layers * min(length, a.window)) * kvw
    cache += la.layers * length * (la.kv_rank + la.rope_dim)
    sequences = ceil(traffic.batch, plan.dp) * cut.stage
    widest = qw * a.query_outputs + kvw
    if model.feed_forward.layers > 0:
        widest = max(widest, model.feed_forward.matrices * cut.ff)
    if x.layers > 0:
        widest = max(widest, x.matrices * cut.xw * x.top_k)
    state = r.layers * cut.state * (r.state * r.state_bits + r.convolution_state * plan.activation_bits) / 8
    along = plan.tp if plan.sequence_parallel > 0.5 else 1.0
    ab, back = plan.activation_bits / 8, max(plan.activation_bits, 16) / 8
    buffers = 2 * widest_step * d * ab * ((plan.tp > 1) + (plan.pp > 1))
    if plan.cp > 1:
        buffers += 2 * widest_step * attention_width(cut, a, la) * ab
    if cut.joined > 1 and x.layers > 0:
        buffers += widest_step * cut.joined * x.top_k / plan.ep * d * (ab + back)
    dense = (blocks + other) * cut.stage + tables / min(plan.pp, 2)
    return {
        "weights": dense * kept * plan.weight_bits / 8,
        "experts": x.layers * cut.held * cut.xp * cut.stage * kept * plan.expert_bits / 8,
        "kv": sequences * cache * plan.kv_bits / 8 / plan.cp,
        "state": sequences * state,
        "activations": widest_step * (2 * d / along + widest) * plan.activation_bits / 8,
        "communication": buffers,
    }
