"""Published arithmetic about LLM inference, each claim with a verdict, evaluated by the model itself.

OK: the claim holds. WRONG: it does not, and the test shows what is. LOOSE: it holds under a condition, which the
test states. Claims are from Ma and Patterson (arXiv:2601.05047) and write-ups of it.

Claims of the systems they name are rows of experiments/claims, held to in test_memory_claims.py.
Not here: readings of the paper that are no arithmetic.
"""

import importlib
import itertools

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.physics.compute.load import Group, step_load
from jaxcost.physics.compute.operators import step_table
from jaxcost.physics.compute.shards import shard
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.physics.network.collectives import RankGroup, all_reduce, communicator
from jaxcost.physics.network.levels import fabric_levels

common = importlib.import_module("claims.common")
KIB, GB, TB, ENDLESS, dense = common.KIB, common.GB, common.TB, common.ENDLESS, common.dense
COMPUTE = common.engines()
HBM, HBF, DDR5, LPDDR5, CARD = "hbm4-6400", "hbf", "ddr5-6400", "lpddr5-6400", "flash-card"
POWER = {HBM: 40, HBF: 80, DDR5: 12, LPDDR5: 3, CARD: 50}  # W, Table 3 of arXiv:2601.05047


def memory_only(bandwidth, capacity=ENDLESS, *, chips=1, latency=0.0):
    """Chips whose memory is their only limit, and messages that cost their latency alone."""
    return jc.System(
        chip=jc.Chip(compute=COMPUTE, memory=jc.Memory(capacity=capacity, bandwidth=bandwidth)),
        fabric=jc.Fabric(domain=chips, scale_up=jc.Link(bandwidth=ENDLESS, overhead=latency, sram_landing=1)),
        chips=chips,
    )


def tokens_per_second(system, model, context=0, *, batch=1, **plan):
    """Decoding speed of one request at a context, in tokens a second."""
    traffic = jc.Traffic(prompt=max(context, 1), output=2, batch=batch)
    return float(1 / jc.evaluate(system, model, traffic, jc.Plan(**plan)).tpot)


def near(got, claimed, rel=0.01):
    assert float(got) == pytest.approx(float(claimed), rel=rel)


def chip_memory(name):
    return jc.load_chip(name).memory


# --- bandwidth and capacity walls ---


def test_ok_70b_in_bf16_is_140_gb():
    near(jc.evaluate(memory_only(1.0), dense(70e9), jc.Traffic(), jc.Plan()).memory.weights, 140 * GB, 1e-4)


@pytest.mark.parametrize(
    ("parameters", "bandwidth", "claimed"),
    [(70e9, 14 * TB, 100), (400e9, 80 * TB, 100), (70e9, 12 * TB, 86), (70e9, 15 * TB, 107)],
)
def test_ok_a_token_is_one_read_of_the_weights(parameters, bandwidth, claimed):
    near(tokens_per_second(memory_only(bandwidth), dense(parameters)), claimed)


def test_ok_100_tokens_per_second_take_93_percent_of_15_tb_per_second():
    assert tokens_per_second(memory_only(0.93 * 15 * TB), dense(70e9)) == pytest.approx(100, rel=0.005)


def test_ok_b200_reads_70b_57_times_a_second():
    near(tokens_per_second(memory_only(8 * TB), dense(70e9)), 57.1, 0.005)
    assert 0.95 < chip_memory("b200").bandwidth / (8 * TB) <= 1  # 7.7 in eight-GPU servers


def test_loose_h100_would_read_70b_24_times_a_second_but_cannot_hold_it():
    memory = chip_memory("h100-sxm")
    system = memory_only(memory.bandwidth, memory.capacity)
    near(tokens_per_second(system, dense(70e9)), 23.9, 0.005)
    assert jc.evaluate(system, dense(70e9), jc.Traffic(), jc.Plan()).margins.memory < 0


def test_wrong_h200_is_no_8_tb_per_second_class():
    bandwidth = chip_memory("h200-sxm").bandwidth
    near(bandwidth, 4.8 * TB, 1e-3)
    near(tokens_per_second(memory_only(bandwidth), dense(70e9)), 34.3, 0.005)


def test_loose_nothing_closes_the_gap_for_400b_holds_for_one_package_only():
    bandwidth = 8 * TB
    assert tokens_per_second(memory_only(bandwidth), dense(400e9)) < 11
    near(tokens_per_second(memory_only(bandwidth, chips=10), dense(400e9), tp=10), 100)


@pytest.mark.parametrize(("capacity", "needed"), [(384 * GB, 3), (192 * GB, 5)])
def test_wrong_400b_needs_four_of_384_gb(capacity, needed):
    def margin(n):
        system = memory_only(TB, capacity, chips=n)
        return jc.evaluate(system, dense(400e9), jc.Traffic(prompt=1), jc.Plan(tp=n)).margins.memory

    assert margin(needed - 1) < 0 <= margin(needed)


def test_wrong_gb200_is_no_384_gb_gpu():
    assert chip_memory("gb200").capacity < 200 * GB


def test_ok_70b_on_an_h200_leaves_one_gb_for_3050_tokens():
    left = 141 * GB - 140 * GB  # as sold; the driver reports 150 GB
    near(left / kv_bytes_per_token(jc.load_model("llama-3.1-70b")), 3050)


@pytest.mark.parametrize(("bits", "gigabytes", "kilotokens"), [(4, 35.0, 137), (4.25, 37.2, 130.6)])
def test_ok_int4_70b_is_35_gb_or_37_with_its_scales(bits, gigabytes, kilotokens):
    used = jc.evaluate(memory_only(1.0), dense(70e9), jc.Traffic(), jc.Plan(weight_bits=bits)).memory.weights
    near(used, gigabytes * GB, 0.002)
    per_token = kv_bytes_per_token(jc.load_model("llama-3.1-70b"))
    near((80 * GB - used) / per_token, kilotokens * 1000)  # of 80 GB as sold


def test_wrong_by_eight_stack_numbers_are_no_package_numbers():
    assert 12 * TB < 8 * jc.load_memory(HBM).bandwidth < 15 * TB


def test_loose_batching_need_not_break_the_latency():
    model, system = jc.load_model("llama-3.1-70b"), memory_only(8 * TB)
    one, many = (tokens_per_second(system, model, 8192, batch=b) for b in (1, 32))
    kv = 8192 * kv_bytes_per_token(model)
    near(kv, 2.68 * GB)
    near(one / many, 1 + 31 * kv / (140 * GB + kv), 0.02)
    near(one / many, 1.58, 0.02)
    near(32 * many / one, 20, 0.02)


@pytest.mark.parametrize(
    ("model", "kibibytes"),
    [("llama-3.1-8b", 128), ("llama-3.1-70b", 320), ("llama-3.1-405b", 504), ("deepseek-v3", 68.625)],
)
def test_ok_kv_bytes_per_token(model, kibibytes):
    assert float(kv_bytes_per_token(jc.load_model(model))) == kibibytes * KIB


def test_ok_sram_only_machines_need_hundreds_of_chips():
    near(140 * GB / chip_memory("groq-lpu-v1").capacity, 609, 0.002)


# --- memories ---


def test_ok_flash_holds_ten_times_as_much_as_hbm():
    hbf, hbm = jc.load_memory(HBF).capacity, jc.load_memory(HBM).capacity
    near(hbf / hbm, 10.67, 1e-3)
    near(hbf / (64.0 * 2**30), 7.5)  # but only this over the largest HBM4 stack
    near(hbf / jc.load_memory("hbm3e").capacity, 21, 0.02)
    near(hbf / jc.load_memory("hbm3e-12hi").capacity, 14, 0.02)


@pytest.mark.parametrize(
    ("name", "per_watt", "gigabytes_per_watt"),
    [(HBF, 20.475, 6.4), (HBM, 41, 1.2), (DDR5, 4.3, 5.3), (LPDDR5, 17.1, 5.3), (CARD, 0.08, 81.9)],
)
def test_ok_bandwidth_and_capacity_per_watt(name, per_watt, gigabytes_per_watt):
    memory = jc.load_memory(name)
    near(memory.bandwidth / GB / POWER[name], per_watt)
    near(memory.capacity / GB / POWER[name], gigabytes_per_watt)
    # The catalogue's energy a byte is that power at full bandwidth.
    near(memory.energy_per_byte * memory.bandwidth, POWER[name], 0.015)


def test_ok_bandwidth_is_pins_times_rate():
    near(jc.load_memory(HBM).bandwidth, 2048 * 6.4e9 / 8, 1e-6)
    near(jc.load_memory(DDR5).bandwidth, 64 * 6.4e9 / 8, 1e-6)


def report_with(memory, model, **plan):
    m = jc.load_memory(memory)
    chip = jc.Chip(compute=COMPUTE, memory=m, tdp=100.0)
    return jc.evaluate(jc.System(chip=chip), model, jc.Traffic(prompt=1, output=2), jc.Plan(**plan))


def test_wrong_flash_lowers_latency_and_power_of_a_device():
    hbf, hbm = (report_with(m, dense(20e9)) for m in (HBF, HBM))
    near(hbf.tpot / hbm.tpot, 1, 1e-3)
    near(hbf.energy.memory / hbm.energy.memory, 2)  # its power at full bandwidth; at rest it draws some more
    assert hbm.margins.memory < 1 - 10 * (1 - hbf.margins.memory)  # what it does give is room


def test_ok_a_model_that_fills_a_flash_stack_decodes_three_tokens_per_second():
    for name, claimed in ((HBF, 3.2), (HBM, 34)):
        memory = jc.load_memory(name)
        full = dense(float(memory.capacity) / 2)
        near(tokens_per_second(memory_only(memory.bandwidth), full), claimed, 0.02)
    # Only a model that reads at most a tenth of itself keeps HBM's speed: DeepSeek-V3 reads a twentieth.
    total, active = jc.parameter_count(jc.load_model("deepseek-v3"))
    assert active / total < 0.1


def test_ok_deepseek_v3_fits_two_flash_stacks_or_fourteen_of_hbm():
    model, eight = jc.load_model("deepseek-v3"), jc.Plan(weight_bits=8, expert_bits=8)
    hbf, hbm = jc.load_memory(HBF), jc.load_memory(HBM)
    weights = jc.evaluate(memory_only(1.0), model, jc.Traffic(), eight).memory
    weights = float(weights.weights + weights.experts)
    assert np.ceil(weights / hbf.capacity) == 2
    assert np.ceil(weights / hbm.capacity) == 14
    near(14 * hbm.bandwidth / (2 * hbf.bandwidth), 7, 0.01)
    # Its 37 active GB at two stacks' bandwidth are 11.3 ms; the embedding is not read, so ours is a little less.
    rate = tokens_per_second(memory_only(2 * hbf.bandwidth), model, weight_bits=8, expert_bits=8)
    near(1000 / rate, 11.3, 0.03)


def test_ok_compute_on_the_base_die_saves_power_and_no_time():
    system, model = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-8b")
    memory = system.chip.memory
    for saving in (2, 3):
        stacked = jc.replace_at(system, "chip.memory.energy_per_byte", memory.energy_per_byte / saving)
        before, after = (jc.evaluate(s, model, jc.Traffic(batch=4), jc.Plan()) for s in (system, stacked))
        assert float(after.tpot) == float(before.tpot)
        assert after.energy.memory < before.energy.memory


# --- energy of tokens and prompts ---


def test_energy_of_tokens_and_prompts():
    rows = {row.name: row for row in importlib.import_module("claims.energy").energy()}
    assert len(rows) == 16
    leaderboard = [row for row in rows.values() if row.source.startswith("ML.ENERGY")]
    assert len(leaderboard) == 8 and all(0.7 < row.ratio < 1.2 for row in leaderboard)
    assert rows["energy of a token, llama-3.1-70b, 32 requests"].verdict == "ok"
    # Bits: at 8 the energy of matmuls is a quarter too low, at the wall as well.
    near(rows["energy of a token at the wall, llama-2-70b"].ratio, 0.76, 0.1)
    # EcoLogits has four times the latency that newer engines have, so more than twice the energy.
    assert 2 < 1 / rows["energy of a request of 400 tokens, llama-3.1-70b"].ratio < 3
    near(rows["energy of a query of 500 tokens, GPT-4o"].ours, 0.3, 0.15)
    near(rows["overhead of the datacenter, of all energy"].ours, 100 * (1 - 1 / 1.09), 1e-4)
    assert 0.1 < rows["energy of a median prompt, all in"].ours < 0.6
    assert 0.3 < rows["host over TPU, energy"].ours < 1


# --- interconnect ---


def test_ok_small_all_reduces_are_latency():
    link = jc.Link(bandwidth=450 * GB, overhead=2e-6)
    fabric = jc.canonical(jc.Fabric(domain=8, scale_up=link))
    on = fabric_levels(fabric, 8.0)
    among = communicator(RankGroup(ranks=8.0), fabric, on)
    message = all_reduce(8192 * 2, among, on, 0.0)
    # Every byte takes two hops through the switch.
    traffic = float(message.level_bytes[1]) / 2 / link.bandwidth
    near(traffic, 0.064e-6, 0.01)
    near(link.overhead / (link.overhead + traffic), 0.97, 0.005)
    near(2e-6 / traffic, 31, 0.02)  # the batch where bytes weigh as much


def test_ok_latency_trumps_bandwidth_on_32_chips():
    without, seconds = (
        1 / tokens_per_second(memory_only(8 * TB, chips=32, latency=t), jc.load_model("llama-3.1-70b"), tp=32)
        for t in (0.0, 2e-6)
    )
    near(seconds - without, 160 * 2e-6, 0.01)
    near(without, 0.55e-3, 0.06)  # and 5% for the copies of eight key-value heads' projections


# --- diffusion ---


def intensity(model, block, batch):
    """Matmul FLOPs per byte of one denoising pass."""
    model = jc.replace(model, diffusion_block=block)
    plan = jc.Plan()
    group = Group(
        sequences=batch,
        new=block,
        context=1024.0,
        logits=block,
        absorbed=1.0,
        encoder_positions=0.0,
        drafts=0.0,
    )
    tree = jc.canonical((model, plan, group))
    model, plan, group = tree
    table = step_table(model, plan, shard(model, plan, 0.0), step_load(model, (group,)))
    flops, weights, cached, activations = (
        float((table.count * getattr(table, column)).sum())
        for column in ("matmul_flops", "parameter_bytes", "cached_bytes", "activation_bytes")
    )
    return flops / (weights + cached + activations), weights


def test_ok_diffusion_trades_bytes_for_flops_and_must_cross_the_ridge():
    model, h100 = jc.load_model("llada-8b"), jc.load_chip("h100-sxm")
    ridge = float(h100.compute.flops_16 / h100.memory.bandwidth)
    near(ridge, 295, 0.01)
    by_block = [intensity(model, block, 1) for block in (1, 8, 32, 128)]
    assert all(a[0] < b[0] for a, b in itertools.pairwise(by_block))
    # The head is applied to the block's tokens and the embedding is read for them; all other weights are read once.
    assert by_block[-1][1] < 1.01 * by_block[0][1]
    assert by_block[0][0] < 2 < 100 < by_block[-1][0] < ridge  # a block alone does not make it compute bound
    assert intensity(model, 128, 16)[0] > ridge


# --- trends ---


def yearly(factor, years):
    return factor ** (1 / years) - 1


def test_ok_or_wrong_rates_of_growth():
    near(80 / 17, 4.7, 0.01)
    near(yearly(4, 10), 0.149, 0.005)  # DRAM density since 2014, at most
    near(yearly(2, 3), 0.26, 0.005)  # flash capacity
    near((1 + yearly(2, 3)) ** 10, 10.1, 0.01)
    # "4X-6X annually for 5-8 years" is wrong: in total it is 19% to 43% a year; a year it would be over 1,000X.
    near(yearly(4, 8), 0.19, 0.01)
    near(yearly(6, 5), 0.43, 0.01)
    assert 4**5 > 1000
