"""Published claims, each row of the experiment's table held to what the table says of it.

Names say how a claim fares: ok, it comes out; loose, under a condition that the test states; wrong, it does not, and
the test shows by how much. Sources stand with the rows, in experiments/claims.
"""

import importlib
import json
import math

import pytest

import jaxcost as jc
from jaxcost.core.program import execution

claims, common, in_a_flash, in_memory, pim_ai = map(
    importlib.import_module,
    ("claims", "claims.common", "claims.llm_in_a_flash", "claims.in_memory", "claims.pim_ai"),
)
TABLE = {of.__name__: of for of in claims.TABLE}


@pytest.fixture(autouse=True)
def _interpreted():
    """Each question is asked a few times, which takes less than a compiler."""
    with execution("interpret"):
        yield


def rows(of, part=""):
    """Rows of one function of the table whose name has a part."""
    found = [row for row in claims.claims(TABLE[of]) if part in row.name]
    assert found
    return found


def row(of, part):
    (found,) = rows(of, part)
    return found


def near(got, claimed, rel=0.01):
    assert float(got) == pytest.approx(float(claimed), rel=rel)


@pytest.mark.parametrize("of", TABLE)
def test_every_verdict_is_what_its_numbers_say(of):
    for one in rows(of):
        assert math.isfinite(one.ours)
        assert one.name and one.source and one.hangs_on
        assert (one.verdict == "-") == (one.claimed is None)
        if one.verdict == "ok":
            assert one.holds, one.name
        if one.verdict == "no":
            assert not one.holds and abs(one.ratio - 1) > 0.05, one.name


def test_rows_are_what_evaluate_says_without_being_told_what_a_design_has():
    system, model = common.memory_only(460e9), common.dense(2.7e9)
    report = jc.evaluate(system, model, common.DECODE, jc.Plan(weight_bits=1.6))
    near(1 / report.tpot, row("tereffic", "2.7B on 460 GB/s, version 2").ours, 1e-5)


# --- RPU, TerEffic ---


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("405b on 308", 1.4),
        ("405b on 428", 1.0),
        ("70b on 145", 0.5),
        ("70b on 204", 0.4),
    ],
)
def test_ok_rpu_latency_is_bandwidth(name, claimed):
    """Within 3%, and half a unit of the one digit that is printed."""
    assert abs(row("rpu", name).ours - claimed) <= 0.03 * claimed + 0.05


def test_loose_rpu_speed_up_is_bandwidth_times_a_gpu_that_idles():
    near(row("rpu", "against 4 H100").ours, 11.8)
    near(row("rpu", "against 2 H100").baseline_share, 0.24, 0.03)
    bandwidth, utilisation = row("rpu", "of which bandwidth"), row("rpu", "of which utilisation")
    near(bandwidth.ours * utilisation.ours, 45.3, 1e-3)


def test_wrong_by_two_percent_308_rpu_units_are_154_tb_per_second():
    near(row("rpu", "bandwidth of 308").ours, 157.7, 1e-3)
    bandwidth = float(jc.load_chip("rpu-cu").memory.bandwidth)
    assert round(154e12 / bandwidth) == 301


def test_loose_rpu_saves_energy_and_its_product_with_delay_takes_an_idle_gpu():
    energy = row("rpu_energy", "four H100 over 308").ours
    near(energy, 6.5, 0.1)
    product = row("rpu_energy", "4 H100 over 428 units: ours")
    near(product.ours, energy * 16.4, 0.02)
    assert product.ours < 0.3 * product.claimed


def test_wrong_rpu_memory_is_192_times_smaller_and_35_times_cheaper():
    smaller, cheaper = row("rpu_memory", "size of a stack"), row("rpu_memory", "price of a stack")
    near(smaller.ours, 64, 0.03)  # its 0.75 GB are 768 MB
    near(cheaper.ours, smaller.ours / 1.81, 1e-6)
    near(row("rpu_memory", "bandwidth a dollar").ours, cheaper.ours / 5, 1e-6)


def test_loose_liminal_on_more_chips_than_key_value_heads_needs_an_even_split():
    """Its constants were found on the same six points, so agreement is a fit and no validation."""
    liminal = importlib.import_module("claims.liminal")
    for chips, published in liminal.PUBLISHED.items():
        waiting = liminal.COLLECTIVES * liminal.LATENCY[chips]
        for context, claimed in zip(liminal.CONTEXTS, published, strict=True):
            even = liminal.even(chips, context)
            near(1 / (even + waiting), claimed, 0.01)
            if chips > 8:  # 8 heads on more chips are copies, and so are their weights
                assert 1 / liminal.sharded(chips, context) < 0.98 * claimed
        if chips == 128:
            near(waiting / (even + waiting), 0.42, 0.05)  # most of it no longer bandwidth


def test_loose_tereffic_reaches_85_percent_of_its_roof_and_its_gpu_17():
    near(727 / row("tereffic", "2.7B on 460 GB/s, version 2").ours, 0.85)
    near(1489 / row("tereffic", "1.3B on").ours, 0.84)
    near(row("tereffic", "2.7B against an A100").ours / 3, 0.17, 0.02)


# --- LLM in a flash ---


def test_wrong_a_latency_and_a_peak_do_not_explain_sequential_reads():
    near(row("in_a_flash", "4 KB").ours, 1.25, 1e-4)
    near(row("in_a_flash", "32 KB").ours, 2.25, 1e-4)
    near(row("in_a_flash", "in sequence").ours, 2.54)


def test_wrong_by_a_tenth_independent_tokens_read_more_new_neurons():
    for window in (4, 5):
        ours = row("in_a_flash", f"window {window}").ours
        near(ours, 100 * 0.03 * 0.97**window, 1e-4)
    assert 1.05 < ours / 2.4 < 1.1


def test_wrong_independent_tokens_keep_fewer_neurons():
    share = 32 * 2 * 4096 * 16384 / float(jc.parameter_count(in_a_flash.OPT)[0])
    near(row("in_a_flash", "neurons of the window").ours, 100 * (1 - 0.97**5) * share, 1e-3)


def test_ok_input_and_output_of_a_token_follow_from_two_points_of_bandwidth():
    near(row("in_a_flash", "input and output a token").ours, 105, 0.05)


def test_loose_naive_loading_is_the_whole_model_at_6_gb_per_second():
    near(row("in_a_flash", "naive loading with an RTX").ours, 2218, 0.005)


# --- flash beside HBM ---


def test_ok_shared_sites_take_the_longer_and_chained_ones_the_sum():
    for one in (*rows("yu", ": max"), *rows("yu", ": sum")):
        near(one.ratio, 1, 0.002)


def test_wrong_weights_in_flash_do_not_hide_behind_a_cache_in_hbm():
    both = row("yu", "70B: weights in 4 flash sites")
    longer = both.claimed
    assert 1.5 * longer < both.ours < 2 * longer


def test_writes_that_a_life_implies():
    one, other = rows("yu", "writes that a life")
    near(one.ours * 4.77, other.ours * 14.82, 1e-6)
    near(one.ours * 1e9, 4 * 375e9 * 1e5 / (4.77 * common.YEAR), 1e-3)
    near(row("yu", "life with writes").ours * 365.25, 54.3)  # days


def test_ok_twice_bandwidth_times_latency_is_just_the_buffer_that_reaches_the_peak():
    assert [one.ours for one in rows("buffer_rule")] == pytest.approx([1, 1, 0.5, 0.1], rel=1e-5)


def test_loose_flash_within_2_percent_of_hbm_is_about_a_wait_that_is_left():
    whole, short, layer = rows("sandisk")
    assert abs(whole.ours) < 0.1
    near(short.ours, 2.2, 0.02)
    near(layer.ours, 100 * 126 * 15e-6 * 8 * 1638e9 / 405.9e9, 0.01)  # one latency a layer over the sweep


# --- claims of the paper on flash, shards and logic below memory ---


def test_ok_a_full_flash_stack_takes_313_ms():
    near(row("flash_arithmetic", "stack of hbf").ours, 313, 0.002)
    near(row("flash_arithmetic", "stack of hbm4").ours, 29.3, 0.002)


def test_loose_deepseek_v3_takes_11_ms_on_two_flash_stacks_if_experts_are_known_ahead():
    ours = row("flash_arithmetic", "DeepSeek-V3").ours
    near(ours - 1e3 * 58 * 15e-6, 11.3, 0.015)
    near(ours, 12.05)


def test_ok_bytes_in_flight():
    near(row("flash_arithmetic", "bytes in flight").ours, 16.4, 0.002)
    near(row("flash_arithmetic", "pages in flight").ours, 4000, 0.001)
    near(row("flash_arithmetic", "buffer for").ours, 32.8, 0.002)


def test_ok_a_cache_wears_flash_out_in_years_or_weeks():
    near(row("flash_arithmetic", "100000 cycles").ours, 2.5)
    near(row("flash_arithmetic", "3000 cycles").ours, 27)


def test_loose_shards_near_memory_are_500_to_1000_times_banks():
    assert [one.ours for one in rows("shards", "over a bank")] == pytest.approx([1000, 500, 500])
    assert [math.ceil(one.ours) for one in rows("shards", "stacks of")] == [5, 9]
    assert [one.ours for one in rows("shards", "banks of")] == pytest.approx([2190, 4375], rel=0.002)


def test_ok_logic_in_the_base_die_saves_power_and_no_time():
    assert [one.ours for one in rows("base_die", ": time")] == [1, 1]
    half, third = (one.ours for one in rows("base_die", ": power"))
    assert 1 / 2 < half < 0.65 and 1 / 3 < third < half


def test_loose_engines_without_more_bandwidth_save_energy_only_where_time_has_slack():
    strict, slack = rows("base_die", "engines in a base die")
    assert strict.ours == 1 and slack.ours < 0.25


# --- engines in memory ---


def test_loose_attacc_needs_a_baseline_of_as_many_engines_and_generation_alone():
    near(row("attacc", "8 GPUs of 160 GB, generation alone").ours, 2.81, 0.03)
    near(row("attacc", "no matmuls in memory").ours, 2.62)
    near(row("attacc", "not pipelined either").ours, 2.15)


def test_wrong_attacc_over_two_servers_or_with_prefill():
    assert row("attacc", "16 GPUs").ours < 1.45
    assert row("attacc", "prefill included").ours < 1.15


def test_attacc_gains_with_the_batch():
    ratios = [in_memory.attacc_ratios(batch)["large, pipelined"] for batch in in_memory.ATTACC_BATCHES]
    assert ratios == sorted(ratios)
    assert ratios[0] < 1.05


def test_wrong_neupims_gains_little_where_attention_in_memory_is_short():
    assert all(1 < one.ours < 1.15 for one in rows("neupims", "in turn"))
    assert all(0.5 < one.ours < 1 for one in rows("neupims", "A100"))


def test_neupims_never_gains_more_than_two():
    """Overlap hides at most the shorter of two."""
    assert all(
        1 <= in_memory.neupims_ratios(512, context, wider)["blocked"] < 2
        for context in (256, 1024)
        for wider in (2, 4, 16)
    )


def test_loose_hpim_needs_its_speed_up_times_what_the_gpu_reaches():
    for one in rows("hpim", "of its roof"):
        near(one.ours, 22.8, 0.01)
    for one in rows("hpim", "five HBM-PIM"):
        near(one.ours, 3.01)
        near(one.baseline_share, 3.01 / one.claimed)


def test_loose_pim_ai_saves_sevenfold_for_few_requests_and_modules_of_their_own():
    most, many, behind, behind_many = (one.ours for one in rows("pim_ai"))
    near(most, 6.94, 0.06)
    assert 3 < many < 4.2 < behind < 5.5
    assert behind_many < 1.7


def test_pim_ai_hangs_most_on_what_gpus_reach():
    halved = pim_ai.pim_ai_ratio(2.0, changed="bandwidth that GPUs reach", factor=0.5)
    module = pim_ai.pim_ai_ratio(2.0, changed="price of a module", factor=0.5)
    base = pim_ai.pim_ai_ratio(2.0)
    assert halved / base > 1.8 > 1.25 > module / base > 1


def test_pim_ai_in_a_phone_saves_energy_and_under_a_cap_time():
    least = row("pim_ai_phone", "energy of a query, least").ours
    assert 5 < least < row("pim_ai_phone", "energy of a query, most").claimed
    assert row("pim_ai_phone", "queries a second").ours > 1.45


def test_table_is_written(tmp_path):
    experiment, study = (importlib.import_module(name) for name in ("03_claims", "study"))
    found = experiment.study(False)
    study.write("03_claims", found, tmp_path, small=False, seconds=0.0)
    written = json.loads((tmp_path / "03_claims.json").read_text())["tables"]["claims"]["rows"]
    assert len(written) == sum(len(claims.claims(of)) for of in claims.TABLE)
    assert {row[0] for row in written} == set(found.sources)
    small = experiment.study(True)
    assert {name: t.units for name, t in small.tables.items()} == {
        n: t.units for n, t in found.tables.items()
    }
