"""A report names the failure it shows, and the knob that would mend it."""

import jax
import pytest

import jaxcost as jc
from jaxcost.edge.commands.memory_options import read_placement, with_memories
from jaxcost.evaluation import evaluate as evaluate_plan
from jaxcost.explore.analysis.diagnosis import diagnose
from tests.test_tiers import ALL, DENSE, GB, TB, chip, engine, hot_chip, split

MOE = jc.load_model("deepseek-v2-lite")
FLASH = jc.Memory(capacity=500 * GB, bandwidth=TB, latency=2e-5)


@pytest.fixture(autouse=True)
def _exact():
    with jax.enable_x64(True):
        yield


def found(made, model=DENSE, traffic=None, fabric=None, plan=None, **place):
    plan = jc.replace(jc.Plan() if plan is None else plan, placement=jc.Placement(**place))
    system = jc.System(chip=made, fabric=jc.Fabric() if fabric is None else fabric, chips=float(plan.tp))
    traffic = jc.Traffic(prompt=1, output=2) if traffic is None else traffic
    report = evaluate_plan(system, model, traffic, plan, features=ALL)
    said: dict[str, str] = {}
    for finding in diagnose(system, model, jax.device_get(report)):
        said[finding.knob] = said.get(finding.knob, "") + finding.what + "; "
    return said


def test_nothing_is_said_where_nothing_is_wrong():
    assert found(chip(hbf=FLASH)) == {}


def test_a_short_prefetch_window():
    said = found(chip(hbf=jc.replace(FLASH, buffer=1e7)), **split(hbf=1.0))
    assert "prefetch window" in said["system.chip.hbf.buffer"] and "40.0 MB" in said["system.chip.hbf.buffer"]


def test_too_few_reads_in_flight():
    assert (
        "in flight"
        in found(chip(hbf=jc.replace(FLASH, granularity=4096, queue_depth=10)))["system.chip.hbf.queue_depth"]
    )


def test_waiting_for_a_routing_decision():
    said = found(chip(hbf=FLASH), model=MOE, automatic=0.0, experts=jc.Split(hbf=1.0))
    assert "experts" in said["system.chip.hbf.latency"]


def test_reads_waiting_for_engines_in_memory():
    made = chip(memory=jc.Memory(capacity=300 * GB, bandwidth=TB, near=engine(blocking=1.0)))
    assert "waiting" in found(made, near_weights=0.5)["system.chip.memory.near.blocking"]


def test_heat():
    said = found(hot_chip(2e-10))
    assert "throttled" in said["system.chip.cooling.sink"] and "105 C" in said["system.chip.cooling.sink"]
    assert "refresh" in found(hot_chip(6e-11))["system.chip.cooling.sink"]
    near = engine(energy_per_byte=1e-10)
    hot = jc.replace(hot_chip(2e-10), memory=jc.Memory(capacity=300 * GB, bandwidth=TB, near=near))
    assert "near memory" in found(hot)["system.chip.memory.near.energy_per_byte"]


def test_collectives_that_time_out():
    link = jc.Link(bandwidth=TB, overhead=1e-6)
    fabric = jc.Fabric(domain=8, scale_up=link, jitter=1e-6, timeout=2e-6)
    assert "time out" in found(chip(), fabric=fabric, plan=jc.Plan(tp=8))["system.fabric.timeout"]


def test_a_tier_worn_out_early_or_too_small():
    model = jc.load_model("llama-3.1-8b")
    traffic = jc.Traffic(prompt=1000, output=200, batch=4)
    worn = jc.replace(FLASH, capacity=GB, endurance=100.0)
    said = found(chip(hbf=worn), model=model, traffic=traffic, automatic=0.0, request_kv=jc.Split(hbf=1.0))
    assert "worn out early" in said["system.chip.hbf.endurance"]
    small = found(chip(hbf=jc.replace(FLASH, capacity=GB)), **split(hbf=0.5))
    assert "times what it has" in small["system.chip.hbf.capacity"]


def test_edge_and_power():
    stack = jc.Memory(capacity=300 * GB, bandwidth=TB, stacks=4.0, shoreline=0.012, energy_per_byte=1e-9)
    said = found(chip(memory=stack, shoreline=0.03, tdp=100.0))
    assert "edge" in said["system.chip.shoreline"] and "power" in said["system.chip.tdp"]


# --- options ---


class Options:
    """What the parser gives by default."""

    place: tuple = ()
    in_turn, interleaved, near_slack = False, 0.0, 0.0


def placement(*place):
    options = Options()
    options.place = place
    return read_placement(options)  # type: ignore[arg-type]


def test_placing_by_hand():
    given = placement("weights=hbf:0.75", "weights=ssd:0.25", "cached_prefix=hbf")
    assert (given.automatic, given.weights.hbf, given.weights.ssd, given.cached_prefix.hbf) == (
        0,
        0.75,
        0.25,
        1,
    )
    assert placement().automatic == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weights", "expected CLASS=TIER:SHARE"),
        ("wieghts=hbf:1", "did you mean 'weights'"),
        ("weights=hfb:1", "did you mean 'hbf'"),
        ("weights=hbf:1.5", "a number from 0 to 1"),
        ("weights=hbf:x", "a number from 0 to 1"),
        ("weights=memory:1", "one of sram, hbf"),
    ],
)
def test_bad_places(text, told):
    with pytest.raises(jc.InputError, match=told):
        placement(text)


def test_shares_of_at_most_one():
    with pytest.raises(jc.InputError, match="at most 1 in all"):
        placement("weights=hbf:0.75", "weights=ssd:0.5")


@pytest.mark.parametrize(
    ("tiers", "near", "told"),
    [
        (["hbf=hfb:4"], [], "did you mean 'hbf'"),
        (["hfb=hbf:4"], [], "did you mean 'hbf'"),
        (["hbf=hbf:four"], [], "a number from 0"),
        (["hbf=hbf:-1"], [], "a number from 0"),
        (["hbf=hbf:4:chianed"], [], "chained"),
        (["hbf"], [], "TIER=TYPE"),
        ([], ["memory=attac-bank"], "did you mean 'attacc-bank'"),
        ([], ["memroy=attacc-bank"], "did you mean 'memory'"),
        ([], ["memory="], "TIER=ENGINE"),
    ],
)
def test_bad_tiers_and_engines(tiers, near, told):
    with pytest.raises(jc.InputError, match=told):
        with_memories(jc.load_system("h100-sxm"), tiers, near)


def test_tiers_and_engines_from_a_file(tmp_path):
    source = 'source: "test", date: "2026", kind: datasheet'
    file = tmp_path / "system.yaml"
    file.write_text(
        f"""title: "test"
chip: h100-sxm
chips: 4
near: attacc-bank
shoreline: {{value: "66 mm", {source}}}
tiers:
  hbf: {{type: hbf, stacks: {{value: 2, {source}}}, chained: {{value: 1, {source}}}, near: hbf-base-die}}
  host: {{type: lpddr5x-8533, stacks: {{value: 8, {source}}}, capacity: {{value: "100 GB", {source}}}}}
stacking: {{energy: {{value: 0.5, {source}}}}}
cooling: {{area: {{value: "800 mm^2", {source}}}, sink: {{value: "30 K*mm^2/W", {source}}}, limit: {{value: "378 K", {source}}}}}
"""
    )
    system = jc.load_system(str(file))
    c = system.chip
    assert float(c.hbf.capacity) == pytest.approx(1024e9) and float(c.hbf.chained) == 1
    assert float(c.hbf.near.bandwidth) == pytest.approx(2 * 1638e9)
    assert float(c.host.capacity) == pytest.approx(100e9) and float(c.host.bandwidth) > 5e11
    assert float(c.memory.near.bandwidth) == pytest.approx(5 * 6034e9)
    assert float(c.cooling.area) == pytest.approx(8e-4) and float(c.cooling.sink) == pytest.approx(3e-5)
    assert float(c.stacking.energy) == 0.5 and float(c.shoreline) == pytest.approx(0.066)
    file.write_text(file.read_text().replace("type: hbf,", "type: hfb,"))
    with pytest.raises(jc.InputError, match=r"tiers\.hbf\.type.*did you mean 'hbf'"):
        jc.load_system(str(file))
