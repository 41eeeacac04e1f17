"""The memory of the oracle: what a chip holds, as an engine allots it. Closed forms of the package are ifs here."""

import math


def ceil(a, b):
    return float(math.ceil(a / b - 1e-12))


def attention_width(cut, la):
    return max(*(s.value for s in cut.shapes), cut.lheads * la.value_dim)


class Layout:
    """The cache of one sequence: pages, windows and groups of layers."""

    def __init__(self, model, plan, bits, cut):
        self.model, self.plan, self.cut, engine = model, plan, cut, plan.engine
        la, r = model.latent, model.recurrence
        self.depth = model.blocks or max(
            cut.attending + la.layers + r.layers, model.feed_forward.layers + model.experts.layers
        )
        each = cut.state * (r.state * r.state_bits + r.convolution_state * plan.activation_bits) / 8
        widest = max([s.entry for s in cut.shapes if s.layers * s.own > 0] + [0.0])
        widest = max(widest, la.kv_rank + la.rope_dim if la.layers > 0 else 0.0)
        token = widest * bits.cache / 8 / plan.cp
        self.each, self.page = each, engine.block
        if engine.grouped and r.layers > 0 and token > 0:
            self.page *= max(ceil(each, token * engine.block), 1.0)
        kinds = {"full": la.layers, "window": 0.0, "state": r.layers}
        for s in cut.shapes:
            if s.a.compression == 1:
                kinds["full"] += s.layers * s.own
            elif s.a.compression == 0 and s.a.window > 0:
                kinds["window"] += s.layers * s.own
        some = [n for n in kinds.values() if n > 0]
        self.padding = dict.fromkeys(kinds, 1.0)
        if engine.grouped and some:
            size = max(some) if max(some) < 1.5 * min(some) else min(some)
            size = max(size, 1.0)
            self.padding = {k: ceil(n, size) * size / n if n > 0 else 1.0 for k, n in kinds.items()}
        self.held = max(self.page * token, each) if engine.grouped and token > 0 else each

    def full(self, tokens):
        return ceil(tokens, self.page) * self.page if self.page > 1 else tokens

    def layers(self, s):
        if s.a.compression == 1:
            return s.layers * s.own * self.padding["full"]
        return s.layers * s.own * (self.padding["window"] if s.a.window > 0 else 1.0)

    def entries(self, s, tokens):
        engine, full = self.plan.engine, self.full(tokens)
        if s.a.compression == 1:
            return full
        far = full / s.a.compression if s.a.compression else 0.0
        if not s.a.window:
            return far
        near = min(tokens, s.a.window + engine.window_steps * engine.step_tokens)
        near = self.full(near) + engine.window_blocks * self.page
        return far + min(max(near, engine.window_share * tokens), full)

    def state(self):
        return self.plan.engine.state_slots * self.model.recurrence.layers * self.held * self.padding["state"]


def cache_pool(plan, capacity, memory):
    engine = plan.engine
    resident = memory["weights"] + memory["experts"]
    buffers = memory["activations"] + memory["communication"]
    runtime, graphs = memory["runtime"], memory["graphs"]
    base = capacity - (runtime if engine.runtime_outside else 0.0)
    inside = engine.memory_share * base - resident - engine.kept_bytes
    inside -= engine.kept_step_bytes * engine.step_tokens + engine.kept_rank_bytes * plan.tp * plan.pp
    inside -= 0.0 if engine.activations_outside else buffers
    inside -= 0.0 if engine.runtime_outside else runtime
    inside -= 0.0 if engine.graphs_outside else graphs
    if inside > 0:
        inside *= engine.cache_share
    return min(inside, capacity - resident - buffers - runtime - graphs)


def held(model, plan, bits, cut, traffic, widest_step, sampled):
    la, r, x, d, ix = model.latent, model.recurrence, model.experts, model.hidden, model.indexer
    kept = 1 - plan.weight_sparsity
    context = traffic.prompt + traffic.retrieved + traffic.encoder_tokens
    mixers = math.fsum(s.layers * s.a.stored_share * (s.into + s.out) for s in cut.shapes)
    mixers += la.layers * (cut.down + cut.up + cut.lheads * la.value_dim * d)
    mixers += r.layers * r.parameters * cut.state + ix.layers * ix.parameters
    ff = model.feed_forward
    layers = ff.layers * ff.stored_share * ff.matrices * d * cut.ff
    layers += x.layers * x.matrices * d * cut.shared
    tables = cut.vocab * d * (2 - model.tied) + model.table_parameters
    wide = model.small_parameters + model.unused_parameters + cut.encoder + cut.draft.stored
    wide += x.layers * d * ((x.experts if x.experts > 1 else 0.0) + 2 * x.latent)
    length = context + traffic.output
    engine = plan.engine
    if engine.profiled:
        widest_step = max(widest_step, engine.step_tokens)
        sampled = max(sampled, min(engine.sequences, widest_step))
    layout = Layout(model, plan, bits, cut)
    full = layout.full(length)
    cache = math.fsum(layout.layers(s) * layout.entries(s, length) * s.entry for s in cut.shapes)
    cache += la.layers * layout.padding["full"] * full * (la.kv_rank + la.rope_dim) + full * cut.draft.cache
    cache = (cache * bits.cache + ix.layers * full / ix.compression * ix.head_dim * ix.key_bits) / 8 / plan.cp
    state = layout.state()
    if engine.state_ratio and state:
        state = (1 + engine.state_ratio) * max(cache, state / engine.state_ratio) - cache
    sequences = ceil(traffic.batch, plan.dp) * cut.stage
    widest = max(s.projected for s in cut.shapes)
    if model.feed_forward.layers > 0:
        widest = max(widest, model.feed_forward.matrices * cut.ff)
    if x.layers > 0:
        rows = max(cut.xw, cut.xd) + max((x.matrices - 1) * cut.xw, cut.xd)
        widest = max(widest, x.top_k * rows)
    along = plan.tp if plan.sequence_parallel > 0.5 else 1.0
    sent, back = bits.sent / 8, max(bits.sent, 16) / 8
    buffers = 2 * widest_step * d * sent * ((plan.tp > 1) + (plan.pp > 1))
    if plan.cp > 1:
        buffers += 2 * widest_step * attention_width(cut, la) * sent
    if cut.joined > 1 and x.layers > 0:
        buffers += widest_step * cut.joined * x.top_k / plan.ep * cut.xd * (sent + back)
    dense = (mixers * bits.mixers + layers * bits.weights + wide * bits.wide) * cut.stage
    dense += tables / (1 if model.tied else min(plan.pp, 2)) * bits.wide
    several = plan.tp * plan.pp * plan.cp > 1
    element = plan.activation_bits / 8
    stream = widest_step * d / along * element
    computing = engine.stream_copies * stream + widest_step * widest * element + engine.workspace_bytes
    sampling = stream + sampled * model.vocabulary * engine.logit_bytes
    return {
        "weights": dense * kept / 8,
        "experts": x.layers * cut.held * cut.xp * cut.stage * kept * plan.expert_bits / 8,
        "kv": sequences * cache,
        "state": sequences * state,
        "activations": max(computing, sampling - buffers),
        "communication": buffers,
        "runtime": engine.runtime_bytes + engine.communicator_bytes * several,
        "graphs": engine.graph_bytes + engine.graph_layer_bytes * layout.depth * cut.stage,
    }
