"""Names that changed keep working under their old form, with a warning."""

import dataclasses
import re
import warnings

import pytest

import jaxcost as jc
from jaxcost.core.pytree import current_path
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.catalog.set_option import read_settings
from jaxcost.edge.commands.memory_options import read_placement
from jaxcost.spec.kernels import CollectiveKernel, CustomAllReduceKernel, EngineOverheads, MixtureKernel

FIELDS = [
    (jc.Placement, "in_turn", "serial_tier_reads"),
    (EngineOverheads, "bunch", "burst_size"),
    (EngineOverheads, "front", "frontend_latency"),
    (EngineOverheads, "eager", "eager_launch_floor"),
    (CollectiveKernel, "change", "protocol_switch"),
    (CollectiveKernel, "crowd", "contention_exponent"),
    (CustomAllReduceKernel, "change", "protocol_switch"),
    (MixtureKernel, "foreign", "remote_fraction"),
]


@pytest.mark.parametrize(("tree", "old", "new"), FIELDS)
def test_fields(tree, old, new):
    message = f"{tree.__name__}.{old} is now {new}"
    with pytest.warns(DeprecationWarning, match=message):
        made = tree(**{old: 0.5})
    assert getattr(made, new) == 0.5
    with pytest.warns(DeprecationWarning, match=message):
        assert getattr(made, old) == 0.5
    with pytest.warns(DeprecationWarning, match=message):
        assert getattr(jc.replace(made, **{old: 0.25}), new) == 0.25
    with pytest.warns(DeprecationWarning, match=message):
        assert getattr(jc.replace_at(made, old, 0.75), new) == 0.75
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        made.none  # noqa: B018
    assert old not in [f.name for f in dataclasses.fields(tree)]


def test_branches_and_paths():
    with pytest.warns(DeprecationWarning, match=r"Placement\.old is now cached_prefix"):
        plan = jc.replace_at(jc.Plan(), "placement.old.hbf", 0.5)
    assert plan.placement.cached_prefix.hbf == 0.5
    with pytest.warns(DeprecationWarning, match=r"Placement\.recent is now request_kv"):
        assert current_path(plan, "placement.recent.host") == "placement.request_kv.host"
    assert current_path(plan, "placement.weights.none") == "placement.weights.none"


def test_set_and_place():
    with pytest.warns(DeprecationWarning, match="in_turn"):
        (setting,) = read_settings(["plan.placement.in_turn=1"])
    assert (setting.path, setting.value) == ("plan.placement.serial_tier_reads", 1)

    class Options:
        place, in_turn, interleaved, near_slack = ("recent=hbf:0.5",), False, 0.0, 0.0

    with pytest.warns(DeprecationWarning, match="recent"):
        assert read_placement(Options()).request_kv.hbf == 0.5


def test_axes_of_a_space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "title: Old names\nsystems: [h100-sxm-x8]\nmodels: [llama-3.1-8b]\naxes:\n  plan.placement.in_turn: [0, 1]\n"
        "  plan.tp: {values: [1, 2], when: {plan.placement.in_turn: 1}}\n"
    )
    with pytest.warns(DeprecationWarning, match="in_turn"):
        space = jc.load_space(str(path))
    assert [axis.name for axis in space.axes][-2:] == ["plan.placement.serial_tier_reads", "plan.tp"]


def test_keys_of_an_efficiency_file(tmp_path):
    text = (configs_root() / "efficiency" / "vllm.yaml").read_text()
    for _, old, new in FIELDS[1:]:
        text = re.sub(rf"(?m)^(\s+){new}:", rf"\1{old}:", text)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        old = jc.load_efficiency(str(path))
    said = {str(warning.message) for warning in caught}
    assert {"EngineOverheads.bunch is now burst_size", "MixtureKernel.foreign is now remote_fraction"} <= said
    assert jc.rows(old) == jc.rows(jc.load_efficiency("vllm"))


def test_calibrate():
    with pytest.warns(DeprecationWarning, match=r"calibrate\(told=...\) is now calibrate\(on_progress=...\)"):
        assert jc.calibrate({}, {}, told=print) == []
