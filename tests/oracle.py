"""A slow second implementation of the model in plain Python: one design, f64, tau = 0, ifs and loops.

It shares nothing with the package but the trees it reads numbers from. Closed forms of the package are sums here.
"""

import math

from tests.oracle_economics import economics
from tests.oracle_memory import attention_width, cache_pool, ceil, held
from tests.oracle_network import Network, copies, hottest


def cut_mean(width, t):
    """A share of ceil(width) as large as a mean of whole widths is of it."""
    whole = math.ceil(width)
    return (width / whole if whole else 1.0) * ceil(width, t)


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


class Bits:
    """Bits of every class of numbers, those that are not stated as the ones that they follow."""

    def __init__(self, plan):
        self.weights, self.experts, self.cache = plan.weight_bits, plan.expert_bits, plan.kv_bits
        self.stream = plan.activation_bits
        self.mixers = plan.mixer_bits or plan.weight_bits
        self.wide = plan.wide_bits or plan.weight_bits
        self.inputs = plan.matmul_bits or plan.activation_bits
        self.scores = plan.attention_bits or plan.activation_bits
        self.sent = plan.message_bits or plan.activation_bits


class Shape:
    """One shape of softmax attention on one chip."""

    def __init__(self, a, d, t):
        self.a, self.layers = a, a.layers
        self.heads, self.kv = cut_mean(a.heads, t), cut_mean(a.kv_heads, t)
        if a.layers == 0:  # widths of 0
            self.heads = self.kv = 0.0
        own = 1 - a.shared_layers / a.layers if a.layers else 0.0
        value = a.value_dim or a.head_dim
        self.query, self.value = self.heads * a.head_dim, self.heads * value
        self.entry = self.kv * (a.head_dim + (value if a.value_cache else 0.0))
        kv = own * self.kv * (a.head_dim + (value if a.value_projection else 0.0))
        asked = self.query * a.query_outputs
        self.projected = asked + kv
        self.into = d * kv + a.extra_parameters
        self.into += a.query_rank * (d + asked) if a.query_rank else d * asked
        groups = cut_mean(a.output_groups, t)
        self.out = a.output_rank * (self.value + groups * d) if a.output_rank else self.value * d
        self.own, self.new_entries = own, self.entries(1.0)

    def entries(self, tokens):
        a = self.a
        if a.compression == 1:
            return tokens
        return (tokens / a.compression if a.compression else 0.0) + min(tokens, a.window)

    def attended(self, g, unmasked):
        """Keys and pairs of a group of sequences."""
        a, c, q = self.a, g["c"], g["q"]
        keys = pairs = 0.0
        if a.window:
            keys += min(c + q, a.window + q - 1)
            pairs += q * min(c + q, a.window) if unmasked else window_sum(q, c, a.window)
        if a.compression and a.selected:
            reach = a.selected * a.compression
            keys += min((c + q) / a.compression, q * a.selected)
            pairs += (q * min(c + q, reach) if unmasked else window_sum(q, c, reach)) / a.compression
        elif a.compression:
            keys += (c + q) / a.compression
            pairs += q * (c + (q if unmasked else (q + 1) / 2)) / a.compression
        return g["B"] * keys, g["B"] * pairs


def shapes(model, t):
    parts = (model.attention, model.window_attention, model.sparse_attention)
    return [Shape(a, model.hidden, t) for a in parts]


class Cut:
    """What one chip holds."""

    def __init__(self, model, plan):
        t, d, x, la = plan.tp, model.hidden, model.experts, model.latent
        self.shapes = shapes(model, t)
        self.attending = math.fsum(s.layers for s in self.shapes)
        self.lheads = ceil(la.heads, t)
        self.lq = self.lheads * (la.nope_dim + la.rope_dim)
        self.down = d * (la.kv_rank + la.rope_dim)
        self.down += d * la.query_rank + la.query_rank * self.lq if la.query_rank > 0 else d * self.lq
        self.up = la.kv_rank * self.lheads * (la.nope_dim + la.value_dim)
        self.state = ceil(model.recurrence.heads, t) / model.recurrence.heads
        self.ff = cut_mean(model.feed_forward.width, t)
        self.xw = ceil(x.width, t / plan.ep if plan.ep < t else 1.0)
        self.xd, wide = x.latent or d, x.latent or d
        if plan.expert_width_multiple:
            self.xw = ceil(self.xw, plan.expert_width_multiple) * plan.expert_width_multiple
        if plan.expert_input_multiple:
            wide = ceil(wide, plan.expert_input_multiple) * plan.expert_input_multiple
        self.xp = x.matrices * wide * self.xw
        self.held = ceil(x.experts, plan.ep)
        self.shared = ceil(x.shared_width, t)
        self.vocab = ceil(model.vocabulary, t)
        self.encoder = model.encoder_parameters / t
        self.draft = Draft(model, plan, self)
        self.joined = plan.ep / t if plan.ep > t else 1.0
        layers = model.blocks or max(
            self.attending + la.layers + model.recurrence.layers,
            model.feed_forward.layers + x.layers,
        )
        self.stage = ceil(layers, plan.pp) / layers


class Draft:
    """What drafts on one chip, and what one pass of it costs: a model of its own, or a module that is one layer."""

    def __init__(self, model, plan, cut):
        t, x, la = plan.tp, model.experts, model.latent
        self.layers = self.stored = self.read = self.expert = self.cache = self.pair = 0.0
        self.width = model.hidden
        if la.layers > 0:
            entry = la.kv_rank + la.rope_dim
            pair = cut.lheads * (la.nope_dim + la.rope_dim + la.value_dim)
        else:
            shape = next((s for s in cut.shapes if s.layers > 0), cut.shapes[0])
            entry, pair = shape.entry, shape.query + shape.value
        if plan.draft_length <= 0:
            self.width = plan.draft_width if plan.draft_parameters and plan.draft_width else self.width
        elif plan.draft_parameters > 0:
            self.layers = plan.draft_layers
            self.stored = (plan.draft_parameters + plan.draft_embedding) / t
            self.read = plan.draft_parameters / t
            self.cache = plan.draft_cache / t if plan.draft_cache else self.layers * entry
            self.pair = 2 * plan.draft_width * self.layers / t if plan.draft_width else self.layers * pair
            self.width = plan.draft_width or self.width
        elif model.draft_parameters > 0:
            routed = x.experts * x.matrices * cut.xd * x.width if x.layers > 0 else 0.0
            share = min(model.draft_parameters / routed, 1.0) if routed else 0.0
            rest = (model.draft_parameters - share * routed) / t
            self.layers, self.cache, self.pair = 1.0, entry, pair
            self.expert = share * cut.xp
            self.read = rest + model.hidden * cut.vocab
            self.stored = rest + cut.held * self.expert


def step(system, model, plan, cut, groups):
    """groups: dicts with B, q, c, logits, absorbed, encoder, drafts. Returns (seconds by op, energy by part)."""
    chip, d, la, r, x, ix = (
        system.chip,
        model.hidden,
        model.latent,
        model.recurrence,
        model.experts,
        model.indexer,
    )
    bits = Bits(plan)
    wb, eb, kb, ab = bits.weights / 8, bits.experts / 8, bits.cache / 8, bits.stream / 8
    pb, wide_b, ib = bits.mixers / 8, bits.wide / 8, bits.inputs / 8
    mixer, wide_rate = max(bits.mixers, bits.inputs), max(bits.wide, bits.stream)
    dense, kept = 1 - plan.weight_sparsity, 1 - plan.activation_sparsity
    m = sum(g["B"] * g["q"] for g in groups)
    ops = {}

    def op(name, count, flops=0.0, vector=0.0, exps=0.0, moved=0.0, at=0.0):
        ops[name] = (count, flops, vector, exps, moved, at or max(bits.weights, bits.inputs))

    def linear(name, count, tokens, params, n_in, n_out, exps=0.0, more=0.0):
        moved = params * pb * dense + tokens * (n_in * ib + n_out * ab) + more
        op(name, count, 2 * tokens * params * dense, exps=exps, moved=moved, at=mixer)

    def wide_linear(name, count, tokens, params, n_in, n_out, exps=0.0):
        moved = params * wide_b * dense + tokens * (n_in + n_out) * ab
        op(name, count, 2 * tokens * params * dense, exps=exps, moved=moved, at=wide_rate)

    layers = cut.attending
    unmasked = model.diffusion_block > 0
    all_pairs = all_keys = latent_pairs = latent_keys = 0.0
    absorbed_pairs = absorbed_tokens = expanded = 0.0
    for g in groups:
        p = g["B"] * g["q"] * (g["c"] + (g["q"] if unmasked else (g["q"] + 1) / 2))
        all_pairs += p
        all_keys += g["B"] * (g["c"] + g["q"])
        seen = g["B"] * (g["c"] + g["q"])
        if la.selected:
            seen = g["B"] * min(g["c"] + g["q"], g["q"] * la.selected)
            near = g["q"] * min(g["c"] + g["q"], la.selected)
            p = g["B"] * (near if unmasked else window_sum(g["q"], g["c"], la.selected))
        latent_pairs += p
        latent_keys += seen
        absorbed_pairs += p * g["absorbed"]
        absorbed_tokens += g["B"] * g["q"] * g["absorbed"]
        expanded += g["B"] * (g["c"] + g["q"]) * (1 - g["absorbed"])
    op("embedding", 1, moved=m * d * wide_b + m * d * ab)

    def mean(number):
        return math.fsum(s.layers * number(s) for s in cut.shapes) / layers if layers else 0.0

    linear(
        "attention_qkv",
        layers,
        m,
        mean(lambda s: s.into),
        d,
        mean(lambda s: s.projected),
        more=m * mean(lambda s: s.own * s.entry * s.new_entries) * kb / plan.cp,
    )
    for kind, s in zip(("full", "window", "sparse"), cut.shapes, strict=True):
        reached = [s.attended(g, unmasked) for g in groups]
        keys, pairs = (math.fsum(side) for side in zip(*reached, strict=True))
        op(
            f"attention_{kind}",
            s.layers,
            2 * (s.query + s.value) * pairs / plan.cp,
            4 * s.heads * pairs / plan.cp,
            s.heads * pairs / plan.cp,
            keys * s.entry * kb / plan.cp + m * (s.query + s.value) * ab,
            max(bits.cache, bits.scores),
        )
    linear("attention_out", layers, m, mean(lambda s: s.out), mean(lambda s: s.value), d)
    scored = all_pairs / ix.compression / plan.cp
    op(
        "indexer",
        ix.layers,
        2 * m * ix.parameters * dense + 2 * ix.heads * ix.head_dim * scored,
        3 * ix.heads * scored,
        moved=ix.parameters * pb * dense
        + (all_keys + m) / ix.compression / plan.cp * ix.head_dim * ix.key_bits / 8
        + m * (d + ix.heads * ix.head_dim) * ab,
        at=ix.key_bits,
    )
    wide = cut.lheads * (la.nope_dim + la.value_dim)
    op(
        "latent_qkv",
        la.layers,
        2 * (m * cut.down + (absorbed_tokens + expanded) * cut.up) * dense,
        moved=(cut.down + cut.up) * pb * dense
        + m * (la.kv_rank + la.rope_dim) * kb / plan.cp
        + m * d * ib
        + (m * (d + cut.lq) + 2 * expanded * wide) * ab,
        at=mixer,
    )
    per_pair = absorbed_pairs * (2 * la.kv_rank + la.rope_dim)
    per_pair += (latent_pairs - absorbed_pairs) * (la.nope_dim + la.rope_dim + la.value_dim)
    op(
        "latent_attention",
        la.layers,
        2 * cut.lheads * per_pair / plan.cp,
        4 * cut.lheads * latent_pairs / plan.cp,
        cut.lheads * latent_pairs / plan.cp,
        latent_keys * (la.kv_rank + la.rope_dim) * kb / plan.cp
        + m * (cut.lq + cut.lheads * la.value_dim) * ab,
        max(bits.cache, bits.scores),
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
            params * wb * dense * touched + m * (d * ib + (d + matrices * w * kept) * ab),
        )

    mix("feed_forward", model.feed_forward.layers, cut.ff, model.feed_forward.matrices)
    scores = x.experts + 2 * x.latent
    wide_linear("router", x.layers, m, d * scores, d, scores, exps=m * x.experts)
    routed = m * cut.joined * x.top_k / plan.ep
    op(
        "routed_experts",
        x.layers,
        2 * routed * cut.xp * dense * kept,
        2 * routed * cut.xw * kept,
        routed * cut.xw * kept * model.activation_exponentials,
        distinct(x.experts, x.top_k, m * cut.joined, x.skew) / plan.ep * cut.xp * eb * dense * touched
        + routed * (cut.xd * ib + (cut.xd + x.matrices * cut.xw * kept) * ab),
        max(bits.experts, bits.inputs),
    )
    mix("shared_experts", x.layers if x.shared_width > 0 else 0.0, cut.shared, x.matrices)
    norm = m / (plan.tp if plan.sequence_parallel > 0.5 else 1.0)
    op("norms", model.norms, vector=6 * norm * d, moved=4 * norm * d * ab)
    logits = sum(g["B"] * g["logits"] for g in groups)
    wide_linear("output_head", 1.0, logits, d * cut.vocab, d, cut.vocab)
    op("sampling", 1, vector=4 * logits * cut.vocab, exps=logits * cut.vocab, moved=logits * cut.vocab * ab)
    encoder = sum(g["B"] * g["encoder"] for g in groups)
    wide_linear("encoder", min(encoder, 1.0), encoder, cut.encoder, 2 * d, 2 * d)
    draft, passes = cut.draft, math.fsum(g["drafts"] for g in groups)
    drafted = math.fsum(g["drafts"] * g["B"] * g["each"] for g in groups)
    each = drafted / passes if passes else 0.0
    if passes and draft.layers:
        keys = math.fsum(g["drafts"] * g["B"] * (g["c"] + g["each"]) for g in groups)
        seen = math.fsum(g["drafts"] * g["B"] * g["each"] * (g["c"] + (g["each"] + 1) / 2) for g in groups)
        reached = distinct(x.experts, x.top_k, each * cut.joined, x.skew) / plan.ep
        flops = 2 * drafted * draft.read * dense
        flops += 2 * drafted * cut.joined * x.top_k / plan.ep * draft.expert * dense
        flops += 2 * seen * draft.pair / plan.cp
        moved = passes * (draft.read + reached * draft.expert) * wide_b * dense
        moved += keys * draft.cache * kb / plan.cp
        parts = 6 * draft.layers * passes
        op(
            "draft",
            parts,
            flops / parts,
            moved=moved / parts + 2 * each * draft.width * ab,
            at=wide_rate,
        )
    else:
        op("draft", 0.0)

    share = chip.efficiency
    seconds, energy = {}, {"matmul": 0.0, "vector": 0.0, "memory": 0.0, "network": 0.0}
    for name, (count, flops, vector, exps, moved, at) in ops.items():
        legs = (
            flops / (rate(chip.compute, at) * share.matmul),
            vector / (chip.compute.vector_flops * share.vector),
            exps / (chip.compute.exponentials * share.vector),
            moved / (chip.memory.bandwidth * share.memory),
        )
        seconds[name] = count * (max(legs) + share.operator_overhead)
        energy["matmul"] += count * flops * chip.energy_per_flop * width(at) / 16
        energy["vector"] += count * (
            vector * chip.energy_per_vector_flop + exps * chip.energy_per_exponential
        )
        energy["memory"] += count * moved * (chip.memory.energy_per_byte + chip.on_chip_energy_per_byte)

    sent_b = bits.sent / 8
    stream = m * d * sent_b
    mixers = layers + la.layers
    net = Network(system)
    tensor = net.counts(plan.tp)
    experts = net.counts(plan.tp, 1.0, cut.joined, plan.tp * plan.cp * plan.pp)
    ways = [(experts[0] * experts[1] * experts[2], 0), (experts[1] * experts[2], 1), (experts[2], 2)]
    share = [copies(g, x.experts, x.top_k) * (experts[k] - 1) / experts[k] for g, k in ways]
    peak = hottest(plan.ep, m * cut.joined * x.top_k, x.experts, x.skew)
    back = max(bits.sent, 16) / 8
    routed = x.layers + passes * (draft.expert > 0) if cut.joined > 1 else 0.0

    def routing(element):
        return net.all_to_all([m * cut.xd * element / plan.tp * y for y in share], experts, peak)

    messages = {
        "tensor_all_reduce": (
            (mixers + r.layers + model.feed_forward.layers + x.layers) if plan.tp > 1 else 0.0,
            net.all_reduce(stream, tensor, plan.sequence_parallel > 0.5),
        ),
        "expert_dispatch": (routed, routing(sent_b)),
        "expert_combine": (routed, routing(back)),
        "context_all_reduce": (
            mixers if plan.cp > 1 else 0.0,
            net.all_reduce(m * attention_width(cut, la) * sent_b, net.counts(plan.cp, plan.tp)),
        ),
        "draft_all_reduce": (
            2 * passes * draft.layers if plan.tp > 1 else 0.0,
            net.all_reduce(each * draft.width * sent_b, tensor),
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
    parts = min(parts, ceil(traffic.batch, plan.dp))  # a microbatch has a request
    interval = max(parts, plan.pp) * cut.stage
    B = ceil(traffic.batch, plan.dp * parts)
    context = traffic.prompt + traffic.retrieved + traffic.encoder_tokens
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    computed = max(context - cached, 1.0)
    block = model.diffusion_block
    if block > 0:
        first, q, gained = block, block, block / model.diffusion_steps
    else:
        first, q = 1.0, 1 + plan.draft_length
        gained = math.fsum(plan.acceptance**i for i in range(int(plan.draft_length) + 1))
        if plan.accepted > 0:
            gained = min(max(plan.accepted, 1.0), q)
        if not cut.draft.layers:  # nothing drafts: nothing is accepted
            gained = 1.0
    steps = max(traffic.output - first, 0.0) / gained
    decode = {
        "B": B,
        "q": q,
        "c": context + max(traffic.output - first - 1, 0.0) / 2,
        "logits": q,
        "absorbed": plan.absorb_decode,
        "encoder": 0.0,
        "drafts": plan.draft_length,
        "each": 1.0,
    }
    positions = traffic.encoder_tokens * model.encoder_ratio
    prefill = {"logits": 1.0, "absorbed": plan.absorb_prefill, "drafts": float(plan.draft_length > 0)}
    if plan.chunk > 0:
        chunk = min(plan.chunk, computed)
        chunks = ceil(computed, chunk)
        prefill |= {
            "B": 1.0,
            "q": chunk,
            "c": cached + (computed - chunk) / 2,
            "encoder": positions * chunk / computed,
            "each": chunk,
        }
        groups = [prefill, decode]
    else:
        budget = plan.engine.step_tokens
        chunks = ceil(B * computed, budget) if budget else 1.0
        tokens = B * computed / chunks  # of a step: several prompts, or a part of one
        chunk = min(tokens, computed)
        prefill |= {
            "B": tokens / chunk,
            "q": chunk,
            "c": cached + (computed - chunk) / 2,
            "encoder": positions * chunk / computed,
            "each": chunk,
        }
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
        mixed, pure, separate = 0.0, 1.0, (parts * chunks + plan.pp - 1) * cut.stage
        ttft, runs = separate * t0 + warm * t1 * interval, chunks
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
    energy["fans"] = system.host.overhead * math.fsum(energy.values())
    energy["host"] = chip_seconds * system.host.power
    joules = math.fsum(energy.values())
    away = system.chips * system.failure_rate * system.repair_time
    up = math.fsum(math.exp(-away) * away**k / math.factorial(k) for k in range(int(system.spares) + 1))
    up /= 1 + system.chips * system.failure_rate * system.switchover_time
    paid = chip_seconds * (1 + system.spares / system.chips) / up
    unused = paid / prices.utilization - chip_seconds
    idle = chip.idle_power * (1 + system.host.overhead) + system.host.power
    metered = (joules + unused * idle) * prices.pue
    usd, carbon = economics(system, prices, paid, metered)
    largest = max(sum(g["B"] * g["q"] for g in groups), B * q)
    sampled = max(sum(g["B"] * g["logits"] for g in groups), B * q)
    memory = held(model, plan, Bits(plan), cut, traffic, largest, sampled)
    used = math.fsum(memory.values())
    pool = cache_pool(plan, chip.memory.capacity, memory)
    available = used - memory["kv"] - memory["state"] + pool
    power = chip.idle_power + max(math.fsum(first_energy.values()) / t0, math.fsum(next_energy.values()) / t1)
    out = {
        "ttft": ttft,
        "tpot": tpot,
        "latency": ttft + steps * gained * tpot,
        "tokens_per_second": per_second,
        "joules_per_token": joules,
        "usd_per_mtok": math.fsum(usd.values()),
        "gco2e_per_mtok": math.fsum(carbon.values()),
        "margins.memory": 1 - used / max(available, 1.0),
        "margins.sequences": 1 - traffic.batch / plan.dp / plan.engine.sequences
        if plan.engine.sequences
        else 1.0,
        "pool.size": pool,
        "pool.requests": plan.dp * ceil(traffic.batch, plan.dp) * pool / (memory["kv"] + memory["state"]),
        "margins.chips": 1 - chips / system.chips,
        "margins.power": 1 - power / chip.tdp,
        "margins.plan": 1.0 if cuts(model, plan) else -1.0,
        "margins.ttft": 1 - ttft / traffic.ttft_target if traffic.ttft_target else 1.0,
        "margins.tpot": 1 - tpot / traffic.tpot_target if traffic.tpot_target else 1.0,
    }
    for part, values in (("energy", energy), ("usd", usd), ("carbon", carbon), ("memory", memory)):
        out |= {f"{part}.{k}": v for k, v in values.items()}
    f = system.fabric
    late = 0.0
    if f.timeout > 0 and f.jitter > 0:
        mixers = cut.attending + model.latent.layers
        blocks = mixers + model.recurrence.layers + model.feed_forward.layers + model.experts.layers
        meetings = blocks * (1 + round(plan.sequence_parallel)) * plan.tp if plan.tp > 1 else 0.0
        meetings += 2 * plan.draft_length * cut.draft.layers * plan.tp if plan.tp > 1 else 0.0
        sparse = model.experts.layers + plan.draft_length * (cut.draft.expert > 0)
        meetings += 2 * sparse * plan.tp * cut.joined if cut.joined > 1 else 0.0
        meetings += mixers * plan.cp if plan.cp > 1 else 0.0
        late = 1 - (1 - math.exp(-f.timeout / f.jitter)) ** meetings
    out["reliability.stale_tokens"], out["reliability.availability"] = late, up
    out |= {f"prefill.{k}.seconds": v for k, v in first_step.items()}
    out |= {f"decode.{k}.seconds": v for k, v in next_step.items()}
    return out


def cuts(model, plan):
    """Whether the degrees divide the model's heads, experts and layers."""
    la, x = model.latent, model.experts
    shapes = (model.attention, model.window_attention, model.sparse_attention)
    heads = [a.heads for a in (*shapes, la) if a.layers > 0]
    if not heads:
        if plan.cp != 1:
            return False
        heads = [model.recurrence.heads]
    mixers = sum(a.layers for a in (*shapes, la, model.recurrence))
    layers = model.blocks or max(mixers, model.feed_forward.layers + x.layers)
    if any(h % plan.tp for h in heads) or plan.pp > layers:
        return False
    return plan.ep == 1 or (x.layers > 0 and x.experts % plan.ep == 0 and plan.ep <= plan.tp * plan.dp)
