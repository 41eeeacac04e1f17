"""Families of the reader: parameter counts of their configs, layers, and what is said about them."""

import copy
import csv
import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import pytest

import jaxcost
from jaxcost.core.pytree import replace
from jaxcost.edge.hf.families.catalogue import ALIASES, FAMILIES
from jaxcost.edge.hf.multimodal.wrappers import WRAPPERS
from jaxcost.edge.hf.reader import ReadModel, read_checkpoint
from jaxcost.edge.io.errors import InputError
from jaxcost.physics.compute.shards import shard, stored_parameters
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

SHARED = Path(jaxcost.__file__).parents[1].parent / "shared" / "data" / "configs"
RELEASED = Path(__file__).parent / "configs"

# Parameters of configs after released models, counted by transformers 5.24 on the meta device.
COUNTED = {
    "afm-4.5b": 4_619_184_640,
    "apertus-8b": 8_053_338_176,
    "axk1-519b": 518_983_052_288,
    "bloom-176b": 176_247_271_424,
    "codegen-16b": 16_032_155_648,
    "command-r7b": 8_028_033_024,
    "deepseek-vl-1.3b": 1_975_235_584,
    "dots-llm1": 142_774_373_888,
    "ernie-4.5-0.3b": 360_748_032,
    "ernie-4.5-300b-a47b": 299_484_163_264,
    "ernie-4.5-vl-28b-a3b": 29_399_294_336,
    "exaone-3.5-7.8b": 7_818_448_896,
    "gemma-3-4b-it": 4_300_079_472,
    "glm-4-32b": 32_566_081_536,
    "glm-4-9b": 9_399_951_360,
    "glm-4.1v-9b": 10_292_777_472,
    "glm-4.5v": 107_710_927_360,
    "glm-4.7-flash": 29_943_390_976,
    "gpt-j-6b": 6_050_882_784,
    "gpt-neo-2.7b": 2_651_307_520,
    "granite-3.1-3b-a800m": 3_298_793_472,
    "granite-3.3-8b": 8_170_864_640,
    "hunyuan-7b": 7_504_568_320,
    "hunyuan-a13b": 80_393_183_232,
    "hy3-295b": 295_033_528_320,
    "idefics3-8b": 8_462_086_384,
    "internvl3-8b-hf": 7_944_373_760,
    "llava-onevision-7b": 8_029_890_080,
    "llava-v1.6-mistral-7b": 7_566_747_648,
    "minitron-8b": 8_271_699_968,
    "mistral-small-3.1-24b": 24_011_361_280,
    "mpt-7b": 6_649_286_656,
    "olmo-2-7b": 7_298_617_344,
    "olmo-3-32b": 32_233_522_176,
    "olmo-7b": 6_888_095_744,
    "olmoe-1b-7b": 6_919_161_856,
    "opt-6.7b": 6_658_473_984,
    "paligemma-3b-224": 2_923_466_480,
    "paligemma2-3b-448": 3_033_127_152,
    "persimmon-8b": 9_397_175_296,
    "phimoe-mini": 6_976_445_760,
    "pixtral-12b": 12_682_739_712,
    "qwen2-vl-7b": 8_291_375_616,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen3-vl-8b": 8_767_123_696,
    "seed-oss-36b": 36_151_104_512,
    "smollm3-3b": 3_075_098_624,
    "smolvlm2-2.2b": 2_246_784_880,
    "solar-open-100b": 102_651_793_408,
    "stablelm-2-1.6b": 1_644_515_328,
    "stablelm-2-12b": 12_143_185_920,
    "starcoder2-7b": 7_173_923_840,
    "trinity-mini-26b-a3b": 26_123_974_400,
}

# Published totals of models that transformers does not build, and their tolerance.
PUBLISHED = {
    "baichuan2-13b": (13.9e9, 0.003),
    "dbrx": (131.6e9, 0.001),
    "deepseek-moe-16b": (16.4e9, 0.003),
    "deepseek-vl2-small": (16.1e9, 0.006),
    "exaone-4.0-1.2b": (1.28e9, 0.003),
    "exaone-4.0-32b": (32e9, 0.001),
    "glm-4-9b-chat": (9.4e9, 0.001),
    "internlm2-20b": (19.86e9, 0.003),
    "internvl2.5-8b": (8.08e9, 0.003),
    "k-exaone-236b-a23b": (236e9, 0.005),
    "kimi-vl-a3b": (16.4e9, 0.005),
    "ling-lite": (16.8e9, 0.003),
    "ling-mini-2.0": (16.26e9, 0.003),
    "minicpm-2b": (2.72e9, 0.005),
    "phi-3-small": (7.39e9, 0.003),
    "xverse-13b": (13.76e9, 0.01),
}

# Files of the shared folder whose published total stands in, as transformers does not build them. The shapes of
# dbrx-132b.json are not those of the release, which is tests/configs/dbrx.json.
SHARED_PUBLISHED = {
    "chatglm3-6b": (6.24e9, 0.001),
    "internlm2-7b": (7.74e9, 0.001),
    "mimo-7b": (7.62e9, 0.001),
    "phi-3-vision": (4.15e9, 0.001),
    "qwen-7b-v1": (7.72e9, 0.001),
}


def shared_rows() -> dict[str, dict[str, str]]:
    """Return the rows of the shared folder's table, by name; none where the folder is absent."""
    table = SHARED / "SOURCES.csv"
    if not table.exists():
        return {}
    with table.open() as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


# Families with recurrent layers, which have tests of their own.
RECURRENT = ("jamba", "mamba2", "nemotron_h", "qwen3_5", "qwen3_5_moe", "qwen3_next")

ROWS = {
    name: row
    for name, row in shared_rows().items()
    if row["model_type"] in {*FAMILIES, *ALIASES, *WRAPPERS}
    and row["model_type"] not in RECURRENT
    and (row["transformers_total"] or name in SHARED_PUBLISHED)
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@functools.cache
def read_file(path: Path) -> ReadModel:
    """Read a config file."""
    return read_checkpoint(json.loads(path.read_text()), file=path.name)


def released(name: str) -> dict[str, Any]:
    """Return a config of the tests' folder."""
    return json.loads((RELEASED / f"{name}.json").read_text())


def total(model: Model) -> float:
    """Count all parameters but those of the draft module, in double precision."""
    with jax.enable_x64(True):
        return float(stored_parameters(model, shard(model, Plan(), 0.0)).total)


def routed(model: Model) -> float:
    """Count the parameters of routed experts in double precision."""
    with jax.enable_x64(True):
        return float(stored_parameters(model, shard(model, Plan(), 0.0)).experts)


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_counted_totals(name: str) -> None:
    """The count is that of transformers; it stores the corrections of routers as buffers, which it does not count."""
    model = read_file(RELEASED / f"{name}.json").model
    corrections = model.experts.layers * model.experts.experts
    assert total(model) - COUNTED[name] in (0, corrections)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_totals(name: str) -> None:
    """The count is the published one, to its digits."""
    published, tolerance = PUBLISHED[name]
    assert total(read_file(RELEASED / f"{name}.json").model) == pytest.approx(published, rel=tolerance)


def test_every_config_has_a_count() -> None:
    """No file of the folder is without a count."""
    assert {path.stem for path in RELEASED.glob("*.json")} >= {*COUNTED, *PUBLISHED}


@pytest.mark.skipif(not ROWS, reason="no shared/data/configs beside the checkout")
@pytest.mark.parametrize("name", sorted(ROWS))
def test_shared_totals(name: str) -> None:
    """Totals, routed experts and encoders of real config files are as counted by transformers or published."""
    row, read = ROWS[name], read_file(SHARED / f"{name}.json")
    model = read.model
    if row["transformers_total"]:
        # A causal class leaves the encoder out.
        text = row["transformers_class"].endswith("ForCausalLM")
        counted = total(replace(model, encoder_parameters=0.0) if text else model)
        assert counted == pytest.approx(float(row["transformers_total"]), rel=1e-3)
        experts = float(row["transformers_routed_experts"])
        assert routed(model) == pytest.approx(experts, rel=1e-3)
    else:
        published, tolerance = SHARED_PUBLISHED[name]
        assert total(model) == pytest.approx(published, rel=tolerance)


@pytest.mark.skipif(not ROWS, reason="no shared/data/configs beside the checkout")
@pytest.mark.parametrize(
    "name", [n for n, row in sorted(ROWS.items()) if float(row["transformers_vision"] or 0) > 0]
)
def test_shared_encoders(name: str) -> None:
    """Encoders are counted with their projector, which the table leaves out for Kimi."""
    counted = read_file(SHARED / f"{name}.json").model.encoder_parameters
    vision = float(ROWS[name]["transformers_vision"])
    if name == "kimi-k2.5":
        wide, width, hidden = 4 * 1152, 1152, 7168
        vision += 2 * width + wide * wide + wide + wide * hidden + hidden
    assert counted == pytest.approx(vision, rel=1e-3)


# Layers, windows and experts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full", "windowed", "window"),
    [
        ("command-r7b", 8, 24, 4096),
        ("exaone-4.0-32b", 16, 48, 4096),
        ("exaone-4.0-1.2b", 30, 0, 0),
        ("gpt-neo-2.7b", 16, 16, 256),
        ("olmo-3-32b", 16, 48, 4096),
        ("smollm3-3b", 36, 0, 0),
        ("starcoder2-7b", 0, 32, 4096),
        ("trinity-mini-26b-a3b", 8, 24, 2048),
        ("mistral-small-3.1-24b", 40, 0, 0),
    ],
)
def test_windows_of_families(name: str, full: int, windowed: int, window: int) -> None:
    """Layers of full attention, layers within a window, and its tokens."""
    model = read_file(RELEASED / f"{name}.json").model
    found = (model.attention.layers, model.window_attention.layers, model.window_attention.window)
    assert found == (full, windowed, window)


@pytest.mark.parametrize(
    ("name", "dense", "sparse", "experts", "top_k", "shared_width"),
    [
        ("dbrx", 0, 40, 16, 4, 0),
        ("dots-llm1", 1, 61, 128, 6, 2816),
        ("ernie-4.5-300b-a47b", 3, 51, 64, 8, 0),
        ("ernie-4.5-vl-28b-a3b", 1, 27, 64, 6, 3072),
        ("glm-4.7-flash", 1, 46, 64, 4, 1536),
        ("granite-3.1-3b-a800m", 0, 32, 40, 8, 0),
        ("hunyuan-a13b", 0, 32, 64, 8, 3072),
        ("ling-mini-2.0", 1, 19, 256, 8, 512),
        ("trinity-mini-26b-a3b", 2, 30, 128, 8, 1024),
    ],
)
def test_experts_of_families(
    name: str, dense: int, sparse: int, experts: int, top_k: int, shared_width: int
) -> None:
    """Dense and sparse layers, routed and shared experts."""
    x = read_file(RELEASED / f"{name}.json").model
    found = (x.feed_forward.layers, x.experts.layers, x.experts.experts, x.experts.top_k)
    assert (*found, x.experts.shared_width) == (dense, sparse, experts, top_k, shared_width)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("gemma-3-4b-it", 16),
        ("idefics3-8b", 4),
        ("internvl3-8b-hf", 4),
        ("llava-onevision-7b", 1),
        ("mistral-small-3.1-24b", 4),
        ("qwen2.5-vl-3b", 4),
        ("smolvlm2-2.2b", 9),
    ],
)
def test_patches_per_token(name: str, ratio: float) -> None:
    """Projectors merge patches."""
    assert read_file(RELEASED / f"{name}.json").model.encoder_ratio == ratio


def test_experts_of_images_are_not_active() -> None:
    """Text uses 3B of ERNIE 4.5 VL; experts of images are stored, and said so."""
    read = read_file(RELEASED / "ernie-4.5-vl-28b-a3b.json")
    assert read.model.unused_parameters == pytest.approx(27 * 64 * (3 * 2560 * 512 + 2560 + 1))
    assert "experts of images are stored but not used by text" in read.notes


# Notes -------------------------------------------------------------------------------------------------


def test_known_type_has_no_notes() -> None:
    """Nothing is said where all was read."""
    assert read_file(RELEASED / "olmo-2-7b.json").notes == ()
    assert read_file(RELEASED / "olmo-2-7b.json").family == "olmo2"


def test_default_of_tied_tables_is_said() -> None:
    """Where no part of a multimodal config says whether tables are tied, the default of its class is."""
    config = {k: v for k, v in released("mistral-small-3.1-24b").items() if k != "tie_word_embeddings"}
    read = read_checkpoint(config, file="c")
    assert read.model.tied == 1
    assert read.notes == ("tie_word_embeddings is not stated: taken as true, the default of mistral3",)


def test_encoder_that_is_not_described_is_said() -> None:
    """The language model of a multimodal config is read without an unknown encoder."""
    read = read_checkpoint(
        {**released("llava-v1.6-mistral-7b"), "audio_config": {"model_type": "other"}}, file="c"
    )
    assert read.notes == ("audio_config is not counted: its encoder is not described",)


# Variants ----------------------------------------------------------------------------------------------


def test_fields_without_a_value_have_the_class_defaults() -> None:
    """Key-value heads, head width and ties that a config leaves out follow its class."""
    bare = {k: v for k, v in released("granite-3.3-8b").items() if k != "num_key_value_heads"}
    model = read_checkpoint(bare, file="c").model
    assert (model.attention.kv_heads, model.attention.head_dim, model.tied) == (32, 128, 1)
    assert read_file(RELEASED / "command-r7b.json").model.tied == 1


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("mpt-7b", {"no_bias": False}, "no_bias"),
        ("mpt-7b", {"attn_config": {"alibi": False}}, "attn_config.alibi"),
        ("hunyuan-a13b", {"moe_intermediate_size": [3072] * 31 + [1024]}, "moe_intermediate_size"),
        ("glm-4-9b-chat", {"rmsnorm": False}, "rmsnorm"),
        ("gpt-neo-2.7b", {"attention_layers": ["global", "lokal"] * 16}, "attention_layers"),
        ("exaone-4.0-32b", {"sliding_window_pattern": "LLXG"}, "sliding_window_pattern"),
        ("ernie-4.5-300b-a47b", {"moe_layer_start_index": "3"}, "moe_layer_start_index"),
    ],
)
def test_bad_fields_of_families(name: str, changes: dict, field: str) -> None:
    """A variant that the model cannot express is refused with its field."""
    with pytest.raises(InputError) as caught:
        read_checkpoint({**released(name), **changes}, file="config.json")
    assert str(caught.value).startswith(f"config.json: {field}: ")


def test_tied_tables_of_multimodal_configs() -> None:
    """The flag of the whole config counts, and that of the language model where older configs have it."""
    config = released("qwen2.5-vl-3b")
    assert read_checkpoint(config, file="c").model.tied == 1
    config = released("qwen3-vl-8b")
    nested = {**config["text_config"], "tie_word_embeddings": True}
    assert read_checkpoint({**config, "text_config": nested}, file="c").model.tied == 0
    config = released("glm-4.1v-9b")
    nested = {**config["text_config"], "tie_word_embeddings": True}
    assert read_checkpoint({**config, "text_config": nested}, file="c").model.tied == 1


ODD = (None, True, -1, 0, 3, 1.5, float("nan"), "auto", [], [None], {"a": 1}, ["full_attention"] * 32)


@pytest.mark.parametrize("name", sorted({*COUNTED, *PUBLISHED}))
def test_odd_values_give_a_model_or_one_line(name: str) -> None:
    """A field with an odd value gives a model of finite numbers or an InputError, and nothing else."""
    config = released(name)
    parts = [(), *((key,) for key, value in config.items() if isinstance(value, dict))]
    for number, (path, field) in enumerate((p, f) for p in parts for f in (config[p[0]] if p else config)):
        changed = copy.deepcopy(config)
        (changed[path[0]] if path else changed)[field] = ODD[number % len(ODD)]
        try:
            model = read_checkpoint(changed, file="config.json").model
        except InputError as error:
            assert str(error).startswith("config.json: ")
            assert "\n" not in str(error)
        else:
            assert all(math.isfinite(leaf) and leaf >= 0 for leaf in jax.tree_util.tree_leaves(model))
