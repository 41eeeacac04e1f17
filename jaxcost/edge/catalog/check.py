"""Whether a request makes sense before it is evaluated: every fault is told in one line."""

import itertools
import math
from collections.abc import Iterable

from jaxcost.edge.catalog.checkpoints import FOLLOWERS
from jaxcost.edge.catalog.drafts import suggest_draft
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import MOST_BITS
from jaxcost.explore.analysis import divisors
from jaxcost.physics.compute.attention import SHAPES, attention_layers
from jaxcost.physics.compute.shards import layer_count
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["check_plan", "check_traffic"]

_DEGREES = ("tp", "pp", "ep", "dp", "cp")
_BITS = ("weight_bits", "expert_bits", "kv_bits", "activation_bits")
_OPTIONAL_BITS = tuple(itertools.chain(*FOLLOWERS.values()))  # 0: as the field that they follow
_MOST_TOKENS = 1e9
_MOST_CHIPS = 1e7
_MOST_LAYERS = 1e4


def check_plan(system: System, model: Model, plan: Plan, traffic: Traffic) -> None:
    """Refuse a plan or traffic that the model cannot be cut into or the system cannot hold.

    Memory that does not suffice is no fault of the request: that is a margin of the report.

    Raises:
        InputError: the first fault found, naming the field as `plan.tp` or `traffic.prompt`.
    """
    for name in _DEGREES:
        _whole(plan, "plan", name, least=1, most=_MOST_CHIPS)
    _whole(plan, "plan", "microbatches", least=0, most=_MOST_CHIPS)
    _whole(plan, "plan", "sequence_parallel", least=0, most=1)
    for name in _BITS:
        _between(plan, "plan", name, 0, MOST_BITS, open_low=True)
    for name in _OPTIONAL_BITS:
        _between(plan, "plan", name, 0, MOST_BITS)
    for name in ("weight_sparsity", "activation_sparsity"):
        _between(plan, "plan", name, 0, 1, open_high=True)
    _between(plan, "plan", "acceptance", 0, 1)
    for name in ("expert_width_multiple", "expert_input_multiple"):
        _whole(plan, "plan", name, least=0, most=_MOST_CHIPS)
    _between(plan, "plan", "neuron_window", 0, _MOST_TOKENS)
    _whole(plan, "plan", "chunk", least=0, most=_MOST_TOKENS)
    _check_draft(model, plan)
    check_traffic(traffic, model)
    _between(model.experts, "model.experts", "skew", 0, math.inf, open_high=True)
    _check_tensor_parallel(model, plan)
    _check_pipeline(model, plan)
    if plan.cp != 1 and attention_layers(model) + model.latent.layers == 0:
        raise InputError("1: this model has no attention", path="plan.cp", given=int(plan.cp))
    _check_experts(model, plan)
    _check_chips(system, plan)
    if traffic.batch < plan.dp:
        expected = f"at least dp = {int(plan.dp)} requests, one for every replica"
        near = str(int(plan.dp))
        raise InputError(expected, path="traffic.batch", given=_shown(traffic.batch), suggestion=near)


def check_traffic(traffic: Traffic, model: Model) -> None:
    """Refuse sizes of requests that are no sizes, as `check_plan` does."""
    for name in ("batch", "prompt", "output"):
        _whole(traffic, "traffic", name, least=1, most=_MOST_TOKENS)
    for name in ("retrieved", "encoder_tokens"):
        _whole(traffic, "traffic", name, least=0, most=_MOST_TOKENS)
    _between(traffic, "traffic", "prefix_hit", 0, 1, open_high=True)
    for name in ("corpus", "corpus_read", "weight_updates", "ttft_target", "tpot_target"):
        _between(traffic, "traffic", name, 0, math.inf, open_high=True)
    if traffic.encoder_tokens > 0 and model.encoder_parameters == 0:
        given = _shown(traffic.encoder_tokens)
        raise InputError("0: this model has no encoder", path="traffic.encoder_tokens", given=given)


def _check_draft(model: Model, plan: Plan) -> None:
    _whole(plan, "plan", "draft_length", least=0, most=_MOST_TOKENS)
    for name in ("draft_parameters", "draft_embedding", "draft_width", "draft_cache"):
        _between(plan, "plan", name, 0, math.inf, open_high=True)
    _whole(plan, "plan", "draft_layers", least=1, most=_MOST_LAYERS)
    if plan.draft_length == 0:
        return
    given = _shown(plan.draft_length)
    if model.diffusion_block > 0:
        raise InputError("0: a diffusion model drafts no tokens", path="plan.draft_length", given=given)
    if plan.draft_parameters == 0 and model.draft_parameters == 0:
        name = suggest_draft(model)
        expected = "0, or a draft model by --draft-model: this model has no multi-token-prediction module"
        suggestion = f"--draft-model {name}" if name else None
        raise InputError(expected, path="plan.draft_length", given=given, suggestion=suggestion)
    if not (plan.accepted == 0 or 1 <= plan.accepted <= 1 + plan.draft_length):
        expected = f"0, or a number in [1, {1 + _shown(plan.draft_length)}]"
        raise InputError(expected, path="plan.accepted", given=_shown(plan.accepted))


def _check_tensor_parallel(model: Model, plan: Plan) -> None:
    degree, shapes = int(plan.tp), [getattr(model, name) for name in SHAPES]
    heads = [int(shape.heads) for shape in shapes if shape.layers > 0]
    heads += [int(model.latent.heads)] if model.latent.layers > 0 else []
    kind = "query heads"
    if not heads:
        heads, kind = [int(model.recurrence.heads)], "heads of the recurrence"
    common = math.gcd(*heads)
    if common % degree:
        expected = f"a divisor of the {common} {kind}"
        near = _nearest_number(degree, divisors(common))
        raise InputError(expected, path="plan.tp", given=degree, suggestion=str(near))


def _check_pipeline(model: Model, plan: Plan) -> None:
    layers = int(layer_count(model))
    if plan.pp > layers:
        expected = f"at most as many pipeline stages as the {layers} layers"
        raise InputError(expected, path="plan.pp", given=int(plan.pp))


def _check_experts(model: Model, plan: Plan) -> None:
    degree = int(plan.ep)
    if model.experts.layers == 0:
        if degree != 1:
            raise InputError("1: this model has no experts", path="plan.ep", given=degree)
        if model.experts.skew > 0:
            given = _shown(model.experts.skew)
            raise InputError("0: this model has no experts", path="model.experts.skew", given=given)
        return
    experts, room = int(model.experts.experts), int(plan.tp) * int(plan.dp)
    if experts % degree:
        near = _nearest_number(degree, divisors(experts))
        raise InputError(
            f"a divisor of the {experts} experts", path="plan.ep", given=degree, suggestion=str(near)
        )
    if degree > room:
        near = _nearest_number(room, [d for d in divisors(experts) if d <= room])
        expected = f"at most tp x dp = {room}, the chips that experts are spread over"
        raise InputError(expected, path="plan.ep", given=degree, suggestion=str(near))


def _check_chips(system: System, plan: Plan) -> None:
    used = int(plan.tp) * int(plan.pp) * int(plan.cp) * int(plan.dp)
    if used > system.chips:
        there = _shown(system.chips)
        expected = f"at most the {there} chips of the system"
        raise InputError(expected, path="plan: tp x pp x cp x dp", given=used)


def _whole(tree: object, path: str, name: str, *, least: int, most: float) -> None:
    value = float(getattr(tree, name))
    if not (math.isfinite(value) and value == round(value) and least <= value <= most):
        near = None
        if math.isfinite(value) and value != round(value) and least <= round(value) <= most:
            near = str(round(value))
        expected = f"a whole number from {least} to {most:,.0f}"
        raise InputError(expected, path=f"{path}.{name}", given=_shown(value), suggestion=near)


def _between(
    tree: object,
    path: str,
    name: str,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    value = float(getattr(tree, name))
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if above and below:
        return
    if high == math.inf:
        expected = f"a number of at least {low}"
    else:
        expected = f"a number in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    raise InputError(expected, path=f"{path}.{name}", given=_shown(value))


def _shown(value: object) -> float | int:
    """Return the value as a person would have typed it."""
    plain = float(value)  # type: ignore[arg-type]
    return int(plain) if math.isfinite(plain) and plain == round(plain) else plain


def _nearest_number(given: int, valid: Iterable[int]) -> int:
    """Return the valid number nearest by ratio, the smaller of two as near."""
    return min(valid, key=lambda n: (abs(math.log(n / given)), n))
