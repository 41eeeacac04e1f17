"""PIM-AI: dollars per query of modules with engines, and energy in a phone."""

from collections.abc import Iterator

import jaxcost as jc
from claims.common import GB, TB, YEAR, Claim, evaluate, group

PIM_AI = "PIM-AI, arXiv:2411.17309"
PIM_AI_INPUTS = {  # of a server of 16 modules; none is published where we could read it, so these are assumptions
    "price of a module": 512.0,  # USD: twice a plain one of 64 GB at 4 USD/GB
    "price of its share of a server": 625.0,  # USD: two processors, 10,000 USD, over 16
    "power of its share of a server": 50.0,  # W
    "bandwidth of a module": 1.0,  # of the catalogue's
    "engines of a module": 1.0,  # of the catalogue's
    "link between modules": 51.2 * GB,  # B/s: one memory channel
    "price of a GPU": 1.0,  # of the catalogue's
    "bandwidth that GPUs reach": 1.0,  # of their peak
    "lifetime": 3 * YEAR,  # s, which they state
}


def pim_ai_ratio(batch: float, *, behind: bool = False, changed: str = "", factor: float = 1.0) -> float:
    """Dollars a token of eight H100 over those of 16 PIM-AI modules, one input changed.

    Args:
        batch: requests in flight on either.
        behind: whether modules only multiply, behind a memory channel that activations cross; else a module is a
            chip of its own.
        changed: name of the input.
        factor: by what it changes.
    """
    x = {name: value * (factor if name == changed else 1.0) for name, value in PIM_AI_INPUTS.items()}
    engine, plain = jc.load_near("pim-ai-dimm"), jc.load_memory("ddr5-6400")
    engine = jc.replace(
        engine,
        bandwidth=engine.bandwidth * x["bandwidth of a module"],
        flops=engine.flops * x["engines of a module"],
    )
    whole = jc.Memory(
        capacity=plain.capacity * engine.density,
        bandwidth=engine.bandwidth,
        energy_per_byte=engine.energy_per_byte,
    )
    memory = jc.replace(plain, near=engine) if behind else whole
    flops = TB if behind else float(engine.flops)
    modules = group(16, memory, flops, x["link between modules"])
    modules = jc.replace(
        modules,
        chip=jc.replace(
            modules.chip,
            price=x["price of a module"],
            tdp=45.0,
            idle_power=5.0,
            energy_per_flop=engine.energy_per_flop,
        ),
        host=jc.Host(price=x["price of its share of a server"], power=x["power of its share of a server"]),
    )
    gpus = jc.load_system("dgx-h100")
    gpus = jc.replace_at(gpus, "chip.price", gpus.chip.price * x["price of a GPU"])
    gpus = jc.replace_at(gpus, "chip.efficiency.memory", x["bandwidth that GPUs reach"])
    # Three years' purchase and upkeep, as its authors count: without a cost of capital.
    model, prices = jc.load_model("llama-2-70b"), jc.Prices(lifetime=x["lifetime"], interest=0.0)
    traffic = jc.Traffic(prompt=1024, output=256, batch=batch)
    of_gpus = evaluate(gpus, model, traffic, jc.Plan(tp=8), prices)
    of_modules = evaluate(modules, model, traffic, jc.Plan(tp=8, pp=2), prices)
    return float(of_gpus.usd_per_mtok / of_modules.usd_per_mtok)


def pim_ai() -> Iterator[Claim]:
    common = (
        "eight H100 over 16 modules, Llama-2-70B, 1024 in, 256 out, three years; traffic and prices are ours"
    )
    own = {batch: pim_ai_ratio(batch) for batch in (1.0, 2.0, 8.0, 32.0)}
    best = max(own, key=lambda batch: own[batch])
    swing = {name: pim_ai_ratio(best, changed=name, factor=0.5) / own[best] for name in PIM_AI_INPUTS}
    order = sorted(swing, key=lambda name: -abs(swing[name] - 1))
    halved = ", ".join(f"{name} x{swing[name]:.2f}" for name in order[:4])
    yield Claim(
        f"cost of a query, at most (batch {best:.0f})",
        PIM_AI,
        6.94,
        "x",
        own[best],
        "loose",
        f"{common}; batch decides; of the inputs, halved: {halved}",
    )
    for name, ratio, why in (
        (
            "the same, batch 32",
            own[32.0],
            "the GPUs have the engines for more requests, the modules have not",
        ),
        (
            "modules behind a memory channel, batch 2",
            pim_ai_ratio(2, behind=True),
            "activations cross 51 GB/s a module, and what is no matmul is the processor's",
        ),
        ("the same, batch 32", pim_ai_ratio(32, behind=True), "as before"),
    ):
        yield Claim(name, PIM_AI, 6.94, "x", ratio, "no", f"{common}; {why}")


# Of a phone: their model has 7B weights of 4 bits, on chips of 2023 and 2024.
PHONE, PHONE_MODEL, PHONE_TRAFFIC = "galaxy-s25-ultra", "llama-2-7b", jc.Traffic(prompt=128, output=128)
PHONE_PLAN = jc.Plan(weight_bits=4.5, placement=jc.Placement(near_slack=0.1))


def pim_ai_phone() -> Iterator[Claim]:
    today = jc.load_system(PHONE, efficiency="typical")
    # The engine's numbers are those of a gigabyte.
    stacks = float(today.chip.memory.capacity) / 1e9
    inside = jc.add_near(today, "memory", "pim-ai-mobile", stacks=stacks)
    model, prices = jc.load_model(PHONE_MODEL), jc.load_prices("phone")
    before, after = (evaluate(s, model, PHONE_TRAFFIC, PHONE_PLAN, prices) for s in (today, inside))
    common = f"{PHONE_MODEL} on {PHONE} under its cap, 128 in and out; theirs is of chips and traffic that we have not"
    token = float(before.joules_per_output_token / after.joules_per_output_token)
    query = float(before.joules_per_query / after.joules_per_query)
    for name, claimed, ours in (
        ("energy of a token, least", 10.0, token),
        ("energy of a token, most", 20.0, token),
        ("energy of a query, least", 6.9, query),
        ("energy of a query, most", 13.4, query),
    ):
        yield Claim(f"phone: {name}", PIM_AI, claimed, "x", ours, "loose", common)
    yield Claim(
        "phone: queries a second, most",
        PIM_AI,
        1.45,
        "x",
        float(after.tokens_per_second / before.tokens_per_second),
        "no",
        f"{common}; today's memory draws the watts that the case sheds, so that less energy is more speed",
    )
