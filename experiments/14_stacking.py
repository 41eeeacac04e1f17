"""3D stacking: bandwidth of the bonds, junction temperature under the stacked DRAM, and resulting tokens per second.

DRAM is bonded on the logic of one chip, and all heat leaves through its layers. Bandwidth grows with the rate per
bond. The junction temperature follows from power, cooling and layers, until the step is slowed to keep the DRAM below
its limit. arXiv:2601.05047 proposes a lower clock and voltage of the logic as the remedy. Logic in the base die of
HBM is compared.
"""

import itertools

import numpy as np

import jaxcost as jc
from study import Case, Study, Table, evaluate, run

CHIP, MODEL, MEMORY = "b200", "llama-3.1-8b", "3d-dram"
TRAFFIC = {"prompt": 1024, "output": 512}
BATCHES = (1, 16)
AREA = 1600e-6  # m^2: the logic dies of the chip, all of it bonded and cooled
# Bonds that carry data, of those that a pitch gives; the rest is power, ground, clock and spares. An estimate, 0.1 to 0.5.
DATA_SHARE = 0.25
PITCHES = {"55 um, microbumps": 55e-6, "40 um, microbumps": 40e-6, "9 um, hybrid bonds": 9e-6}
RATES = (0.1e9, 0.25e9, 0.5e9, 1e9)  # bit/s of a bond
PITCH = 40e-6
BANDWIDTHS = tuple(4e12 * 2 ** (i / 2) for i in range(11))  # 4 to 128 TB/s
# K m^2/W from the outermost die to the coolant; estimates: air 70 to 150, cold plate 25 to 60, channels etched into
# the silicon 9 to 20 (Tuckerman and Pease 1981 reach 9).
SINKS = {"air": 100e-6, "cold plate": 40e-6, "microchannels": 15e-6}
LAYER = 5e-6  # K m^2/W of a thinned layer of DRAM with its bond; an estimate, 2 to 10
LAYERS = (4, 8, 16)
CLOCKS = (1.0, 0.7, 0.5)
ENERGIES = (0.25, 0.5, 1.0)  # of a byte between bond and engines against memory beside the chip; 0.5 is taken
SINK, LAYER_COUNT, ENERGY = "cold plate", 8, 0.5
HBM_STACKS, CAP = 4, 500.0  # beside a chip of 1000 W; W that it is capped to


def stacked(bandwidth: float, sink: str, layers: float, clock: float, energy: float) -> jc.System:
    """A chip under DRAM, its logic at a share of its clock and the voltage that goes with it."""
    made = jc.add_tier(jc.load_system(CHIP), "memory", MEMORY)
    chip = made.chip
    density = DATA_SHARE / PITCH**2
    volts = float(1 - chip.voltage_slope * (1 - clock)) ** 2
    rates = ("flops_32", "flops_16", "flops_8", "flops_6", "flops_4", "vector_flops", "exponentials")
    joules = (
        "energy_per_flop",
        "energy_per_vector_flop",
        "energy_per_exponential",
        "on_chip_energy_per_byte",
        "idle_power",
    )
    chip = jc.replace(
        chip,
        compute=jc.replace(chip.compute, **{name: getattr(chip.compute, name) * clock for name in rates}),
        stacking=jc.Stacking(
            bond_density=density, bond_rate=8 * bandwidth / (density * AREA), area=AREA, energy=energy
        ),
        cooling=jc.Cooling(area=AREA, sink=SINKS[sink], layer=LAYER, layers=float(layers)),
        **{name: getattr(chip, name) * volts for name in joules},
    )
    return jc.replace(made, chip=chip)


def bonds() -> Table:
    """Bandwidth by pitch and rate of the bonds."""
    rows = []
    for (name, pitch), rate in itertools.product(PITCHES.items(), RATES):
        density = DATA_SHARE / pitch**2
        bandwidth = density * AREA * rate / 8
        rows.append({"bond": name, "pitch": pitch, "density": density, "rate": rate, "bandwidth": bandwidth})
    units = {"bond": "", "pitch": "m", "density": "1/m^2", "rate": "bit/s", "bandwidth": "B/s"}
    return Table(f"data bonds on {AREA * 1e6:.0f} mm^2", units, rows)


def heat(small: bool) -> Table:
    """Temperature and speed by bandwidth, cooling, clock; layers and energy of a byte around the middle."""
    bandwidths = BANDWIDTHS[2::4] if small else BANDWIDTHS
    sinks, clocks, batches = ((SINK,), CLOCKS[::2], BATCHES[:1]) if small else (tuple(SINKS), CLOCKS, BATCHES)
    variants = list(itertools.product(sinks, (LAYER_COUNT,), clocks, (ENERGY,)))
    variants += [(SINK, n, 1.0, ENERGY) for n in LAYERS if n != LAYER_COUNT]
    variants += [(SINK, LAYER_COUNT, 1.0, e) for e in ENERGIES if e != ENERGY]
    grid = list(itertools.product(variants, batches, bandwidths))
    model = jc.load_model(MODEL)
    report = evaluate(
        [Case(stacked(w, *how), model, jc.Traffic(batch=b, **TRAFFIC), jc.Plan()) for how, b, w in grid]
    )
    decode, prefill = report.thermal.decode, report.thermal.prefill
    total = report.decode.total
    rows = []
    for i, ((sink, layers, clock, energy), batch, bandwidth) in enumerate(grid):
        lost = decode.throttling[i] + decode.refresh[i]
        rows.append(
            {
                "sink": sink,
                "layers": layers,
                "clock": clock,
                "byte_energy": energy,
                "batch": batch,
                "bandwidth": report.tiers.memory.bandwidth[i],
                "power": report.power.decode[i],
                "temperature": decode.temperature[i],
                "cool_temperature": decode.temperature[i]
                if not lost
                else _unthrottled(report, i, sink, layers),
                "throttled": max(decode.throttling[i] / total[i], 0.0),
                "refreshing": decode.refresh[i] / total[i],
                "tokens_per_second": report.decode_tokens_per_second[i],
                "unheated": batch / (total[i] - lost),
                "prefill_temperature": prefill.temperature[i],
                "prefill_throttled": max(prefill.throttling[i] / report.prefill.total[i], 0.0),
                "ttft": report.ttft[i],
            }
        )
        assert np.isclose(report.tiers.memory.bandwidth[i], bandwidth, rtol=1e-4)
    units = {
        "sink": "",
        "bandwidth": "B/s",
        "power": "W",
        "temperature": "K",
        "cool_temperature": "K",
        "tokens_per_second": "token/s",
        "unheated": "token/s",
        "prefill_temperature": "K",
        "ttft": "s",
    }
    units = {name: units.get(name, "1") for name in rows[0]}
    return Table("one decode step on one chip under a stack of DRAM", units, rows)


def _unthrottled(report: jc.Report, i: int, sink: str, layers: float) -> float:
    """Temperature that the step would reach were it not slowed: its work, done in the time it takes when cool."""
    lost = report.thermal.decode.throttling[i] + report.thermal.decode.refresh[i]
    total = report.decode.total[i]
    idle = report.energy.idle[i] * report.tokens_per_second[i]
    watts = idle + (report.power.decode[i] - idle) * total / (total - lost)
    return float(jc.Cooling().coolant + watts * (SINKS[sink] + layers * LAYER) / AREA)


def base_die() -> Table:
    """HBM beside the chip, the same with less energy a byte, and engines in its base dies; free and under a power cap."""
    base = jc.add_tier(jc.load_system(CHIP), "memory", "hbm4", stacks=HBM_STACKS)
    near = jc.add_near(base, "memory", "hbm4-base-die")
    kinds = {
        "HBM4": base,
        "half the energy a byte": jc.replace_at(base, "chip.stacking.energy", 1 / 2),
        "a third of the energy a byte": jc.replace_at(base, "chip.stacking.energy", 1 / 3),
        "engines in the base die": near,
    }
    grid = list(itertools.product(kinds, (0.0, CAP)))
    plan = jc.Plan(placement=jc.Placement(near_slack=0.1))
    model, traffic = jc.load_model(MODEL), jc.Traffic(batch=1, **TRAFFIC)
    report = evaluate(
        [Case(jc.replace_at(kinds[name], "chip.power_cap", cap), model, traffic, plan) for name, cap in grid]
    )
    power, total = report.power.decode, report.decode.total
    rows = [
        {
            "memory": name,
            "cap": cap,
            "tpot": report.tpot[i],
            "power": power[i],
            "joules_per_token": power[i] * total[i],
            "time_ratio": report.tpot[i] / report.tpot[i % 2],
            "power_ratio": power[i] / power[i % 2],
        }
        for i, (name, cap) in enumerate(grid)
    ]
    units = {
        "memory": "",
        "cap": "W",
        "tpot": "s",
        "power": "W",
        "joules_per_token": "J/token",
    }
    return Table(
        "the same bandwidth with less energy a byte, batch 1", {n: units.get(n, "1") for n in rows[0]}, rows
    )


def study(small: bool) -> Study:
    bonded, hot, die = bonds(), heat(small), base_die()
    middle = {"sink": SINK, "layers": LAYER_COUNT, "clock": 1.0, "byte_energy": ENERGY, "batch": 1}

    def rows(**of) -> list[dict]:
        key = middle | of
        return [r for r in hot.rows if all(r[k] == v for k, v in key.items())]

    def begins(found: list[dict]) -> float:
        """Bandwidth at which the junction meets its limit: where the straight line of temperatures passes it."""
        top = float(jc.load_memory(MEMORY).temperature_limit)
        x = [r["bandwidth"] for r in found]
        y = [float(r["cool_temperature"]) for r in found]
        return float(np.interp(top, y, x)) if y[0] < top < y[-1] else float("nan")

    def most(found: list[dict]) -> float:
        return max(float(r["tokens_per_second"]) for r in found)

    sinks = list(dict.fromkeys(r["sink"] for r in hot.rows))
    start = {sink: begins(rows(sink=sink)) for sink in sinks}
    slow = min(r["clock"] for r in hot.rows)
    top = rows()[-1]
    free, third = die.rows[0], die.rows[4]
    near, capped, near_capped = die.rows[6], die.rows[1], die.rows[7]
    limit = float(jc.load_memory(MEMORY).temperature_limit)
    by_energy = [begins(rows(byte_energy=e)) for e in ENERGIES]
    by_layers = [begins(rows(layers=n)) for n in LAYERS]
    prefill = max(rows(), key=lambda r: r["prefill_temperature"])
    return Study(
        title="3D stacking: bandwidth against heat",
        findings=(
            f"Hybrid bonds are not the limit: at {RATES[-1] / 1e9:.0f} Gbit/s a bond microbumps at a pitch of 40 um move "
            f"{next(r['bandwidth'] for r in bonded.rows if r['pitch'] == PITCH and r['rate'] == RATES[-1]) / 1e12:.0f} TB/s and hybrid bonds at 9 um "
            f"{next(r['bandwidth'] for r in bonded.rows if r['pitch'] < 10e-6 and r['rate'] == RATES[-1]) / 1e12:.0f} TB/s.",
            f"Decoding at batch 1 meets {limit - 273.15:.0f} C at "
            + ", ".join(f"{start[sink] / 1e12:.0f} TB/s ({sink})" for sink in sinks)
            + f"; more bandwidth than that adds no speed: {most(rows()):,.0f} tokens/s with a cold plate, of "
            f"{top['unheated']:,.0f} that {top['bandwidth'] / 1e12:.0f} TB/s would give.",
            f"A lower clock helps: at {slow:.0%} of the clock and its voltage the limit is met at {begins(rows(clock=slow)) / 1e12:.0f} TB/s and "
            f"{most(rows(clock=slow)):,.0f} tokens/s are reached, {most(rows(clock=slow)) / most(rows()):.2f} times as many; prefill pays with "
            f"{rows(clock=slow)[0]['ttft'] / rows()[0]['ttft']:.1f} times the time to first token.",
            f"The energy of a byte matters as much as cooling: with {ENERGIES[0]:.2f}, {ENERGIES[1]:.1f} and {ENERGIES[2]:.0f} of its "
            f"energy beside the chip the limit is met at {', '.join(f'{x / 1e12:.0f}' for x in by_energy)} TB/s; with "
            f"{', '.join(map(str, LAYERS))} layers at {', '.join(f'{x / 1e12:.0f}' for x in by_layers)} TB/s.",
            *(
                (
                    f"At batch {max(BATCHES)} the limit is met at {begins(rows(batch=max(BATCHES))) / 1e12:.0f} TB/s under a cold plate and "
                    f"{most(rows(batch=max(BATCHES))):,.0f} tokens/s are reached.",
                )
                if not small
                else ()
            ),
            f"Prefill runs at {prefill['prefill_temperature'] - 273.15:.0f} C under the cold plate, "
            f"{prefill['prefill_throttled']:.0%} of its time lost to heat.",
            f"Logic in the base die, at the bandwidth of HBM4: a third of the energy a byte leaves the time per token at "
            f"{third['time_ratio']:.3f} and the power of the chip at {third['power_ratio']:.2f}; engines there {near['time_ratio']:.3f} and "
            f"{near['power_ratio']:.2f} ({free['power']:.0f} to {near['power']:.0f} W).",
            f"Only under a cap of power does less energy become speed: at {CAP:.0f} W a token takes {capped['tpot'] * 1e3:.2f} ms from HBM4 and "
            f"{near_capped['tpot'] * 1e3:.2f} ms with engines in the base die.",
        ),
        assumptions=(
            f"{CHIP} logic, {MODEL} at 16 bits on one chip, so that no message counts; every peak reached.",
            f"T = coolant + P (sink + layers x layer) / area: {AREA * 1e6:.0f} mm^2, coolant at 35 C, all power through all layers; sinks of "
            f"{', '.join(f'{v * 1e6:.0f} ({k})' for k, v in SINKS.items())} K mm^2/W and {LAYER * 1e6:.0f} a layer are estimates.",
            f"A byte through the bond takes {ENERGY} of the energy of one from beside the chip, device and way, an estimate.",
            "At clock f rates are f and energies V^2, V = 1 - (1 - f) / 2, those of wires and idling too; the DRAM's stay.",
            "The chip's limit of power is left out, so that heat alone binds; HBM4 beside it comes in four stacks, to stay within it.",
            "Above the limit a step slows down at the same energy; refresh doubles from 85 to 90 C.",
        ),
        sources=(
            "arXiv:2601.05047: base dies at the bandwidth of HBM and a half to a third of its power; low clock and voltage",
            "configs/memories/3d-dram.yaml",
            "Tuckerman and Pease 1981, doi 10.1109/EDL.1981.25367",
        ),
        tables={"bonds": bonded, "heat": hot, "base_die": die},
    )


if __name__ == "__main__":
    run(study)
