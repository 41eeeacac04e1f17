"""Drafts of speculative decoding: the draft of a plan from a model, and published acceptance."""

import itertools
import math
from collections.abc import Sequence

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.loaders import load_model
from jaxcost.edge.catalog.parts import list_names, load_part
from jaxcost.edge.catalog.reading import quantities, shown
from jaxcost.edge.io.errors import InputError, within
from jaxcost.physics.compute.attention import SHAPES
from jaxcost.physics.compute.shards import active_parameters, total_parameters
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["check_draft", "load_acceptance", "suggest_draft", "with_draft"]

_SMALLER = 8  # a draft is suggested where the model has at least this many times its parameters


def with_draft(
    plan: Plan,
    draft: Model | None,
    *,
    length: float | None = None,
    acceptance: float | Sequence[float] | str = 0.7,
    model: Model | None = None,
) -> Plan:
    """Return the plan with speculative decoding by a draft model.

    A step drafts g = `length` tokens one after another and verifies all at once. With a_k the probability that the k-th
    drafted token is accepted where those before it are, it yields on average

        1 + a_1 + a_1 a_2 + ... + a_1 a_2 ... a_g tokens

    Args:
        plan: the plan.
        draft: a dense model with softmax attention; None for the multi-token-prediction module of the model.
        length: g; None for the number of values of `acceptance`.
        acceptance: a_k, one number for all or a list by position; or the name of a table of `jaxcost list acceptance`,
            whose values are the products.
        model: the model that verifies, to compare the vocabularies; None to compare nothing.

    Returns:
        The plan with its fields of a draft set. Cached elements of the draft have `plan.kv_bits` bits, its weights
        `plan.wide_bits`.

    Raises:
        InputError: a draft that is not dense or has another vocabulary; acceptance outside [0, 1] or for fewer than
            `length` tokens.
    """
    fields: dict[str, float] = {"accepted": 0.0}
    if isinstance(acceptance, int | float):
        if length is None:
            expected = "a number of drafted tokens, as acceptance is the same for all"
            raise InputError(expected, path="length", given=length)
        fields["acceptance"] = _share(acceptance, "acceptance")
    else:
        if isinstance(acceptance, str):
            shares = within(None, "acceptance", load_acceptance, acceptance)
        else:
            each = [_share(value, f"acceptance[{k}]") for k, value in enumerate(acceptance)]
            shares = tuple(itertools.accumulate(each, lambda before, value: before * value))
        length = len(shares) if length is None else length
        if (
            not shares
            or not math.isfinite(length)
            or length != round(length)
            or not 0 < length <= len(shares)
        ):
            expected = f"a whole number from 1 to the {len(shares)} drafted tokens whose acceptance is given"
            raise InputError(expected, path="length", given=_plain(length))
        fields["accepted"] = 1 + math.fsum(shares[: round(length)])
    if draft is not None:
        check_draft(draft, model)
        fields |= _draft_fields(draft)
    return replace(plan, draft_length=float(length), **fields)


def check_draft(draft: Model, model: Model | None) -> None:
    """Refuse a draft that is not dense, or whose vocabulary is not that of the model."""
    for name, part in (
        ("experts", draft.experts),
        ("recurrence", draft.recurrence),
        ("latent", draft.latent),
    ):
        if part.layers > 0:
            expected = "no layers of experts, recurrence or latent attention: a draft model is dense"
            raise InputError(expected, path=f"draft.{name}", given=round(float(part.layers)))
    if draft.diffusion_block > 0:
        expected = "no diffusion: a draft model decodes one token after another"
        raise InputError(expected, path="draft.diffusion_block", given=round(float(draft.diffusion_block)))
    if model is not None and draft.vocabulary != model.vocabulary:
        expected = f"the vocabulary of the model, {float(model.vocabulary):.0f} tokens"
        raise InputError(expected, path="draft.vocabulary", given=round(float(draft.vocabulary)))


def suggest_draft(model: Model) -> str | None:
    """Return the smallest dense model of the catalogue with the vocabulary of a larger model, None without one."""
    most, sizes = float(total_parameters(model)) / _SMALLER, {}
    for name in list_names("models"):
        draft = load_model(name)
        if draft.vocabulary != model.vocabulary:
            continue
        try:
            check_draft(draft, model)
        except InputError:
            continue
        sizes[name] = float(total_parameters(draft))
    smallest = min(sizes, key=lambda name: (sizes[name], name), default=None)
    return smallest if smallest is not None and sizes[smallest] <= most else None


def load_acceptance(name: str) -> tuple[float, ...]:
    """Load a table of acceptance: for each drafted token, the share of drafts accepted up to and including it.

    Raises:
        InputError: no such table, or one whose values have a gap or rise.
    """
    part, path = load_part("acceptance", name)
    values = quantities(part, path)
    shares = tuple(values[key] for key in sorted(values, key=lambda key: int(key.removeprefix("token_"))))
    for k, share in enumerate(shares, 1):
        if f"token_{k}" not in values:
            raise InputError("a value for every token before the last", file=shown(path), path=f"token_{k}")
        if k > 1 and share > shares[k - 2]:
            expected = f"at most the {shares[k - 2]:g} of the token before"
            raise InputError(expected, file=shown(path), path=f"token_{k}", given=share)
    return shares


def _draft_fields(draft: Model) -> dict[str, float]:
    """Return the fields of a plan that describe a draft model."""
    looked_up = draft.vocabulary * draft.hidden * (1 - draft.tied) + draft.table_parameters
    heads = (
        shape.heads * shape.head_dim
        for shape in (getattr(draft, name) for name in SHAPES)
        if shape.layers > 0
    )
    return {
        "draft_parameters": float(active_parameters(draft) - looked_up),
        "draft_embedding": float(looked_up + draft.unused_parameters),
        "draft_layers": sum(float(getattr(draft, name).layers) for name in SHAPES),
        "draft_width": max(float(draft.hidden), *map(float, heads)),
        "draft_cache": float(kv_bytes_per_token(draft, Plan(kv_bits=8.0))),
    }


def _plain(value: float) -> float:
    return round(value) if math.isfinite(value) and value == round(value) else value


def _share(value: float, path: str) -> float:
    if not 0 <= value <= 1:
        raise InputError("a number in [0, 1]", path=path, given=value)
    return float(value)
