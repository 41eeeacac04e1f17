"""A slow second implementation of the model in plain Python: one design, f64, tau = 0, ifs and loops.

It shares nothing with the package but the trees it reads numbers from. Closed forms of the package are sums here.
"""

import math

from tests.oracle_economics import economics
from tests.oracle_network import Network, copies, hottest


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
    mix("shared_experts", x.layers if x.shared_width > 0 else 0.0, cut.shared, x.matrices)
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
    usd, carbon = economics(system, prices, paid, metered)
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
