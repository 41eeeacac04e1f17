"""The options of speculative decoding, and the draft of a plan that they describe."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from typing import Any

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.drafts import with_draft
from jaxcost.edge.io.errors import InputError, within
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["Draft", "add_draft_arguments", "describe_draft", "read_draft"]

_ACCEPTANCE = float(Plan().acceptance)
# Options by the argument of `with_draft` that they are.
_OPTIONS = {"draft": "--draft-model", "length": "--draft-length", "acceptance": "--acceptance"}


@dataclasses.dataclass(frozen=True)
class Draft:
    """The options of speculative decoding as they were given."""

    model: str | None = None  # name of the draft model
    acceptance: float | tuple[float, ...] | str = _ACCEPTANCE


def add_draft_arguments(group: Any, read_number: Callable[[str], float]) -> None:
    """Add the options of a draft that are not numbers."""

    def acceptance(text: str) -> float | tuple[float, ...] | str:
        if "," in text:
            return tuple(read_number(part) for part in text.split(","))
        try:
            return float(text)
        except ValueError:
            return text

    group.add_argument(
        "--draft-model",
        metavar="NAME",
        help="model that drafts the tokens of --draft-length, named as for --model",
    )
    group.add_argument(
        "--acceptance",
        type=acceptance,
        default=_ACCEPTANCE,
        metavar="N",
        help="probability that a drafted token is accepted: a number, a list by position such as 0.8,0.7,0.6, or a "
        f"name of `jaxcost list acceptance` (default {_ACCEPTANCE:g})",
    )


def read_draft(args: argparse.Namespace, plan: Plan, model: Model) -> Plan:
    """Set the draft of a plan from --draft-model, --draft-length and --acceptance."""
    if isinstance(args.acceptance, float) and args.draft_model is None:
        return replace(plan, acceptance=args.acceptance)
    draft = None
    if args.draft_model is not None:
        if plan.draft_parameters > 0:
            expected = "no weights with --draft-model, which has them"
            raise InputError(expected, path="--draft-parameters", given=plan.draft_parameters)
        draft = within(None, "--draft-model", catalog.load_model, args.draft_model, download=args.download)
    length = float(plan.draft_length) or None
    try:
        return with_draft(plan, draft, length=length, acceptance=args.acceptance, model=model)
    except InputError as error:
        if error.file is not None:
            raise
        path = _OPTIONS[re.split(r"[.\[]", error.path)[0]]
        raise InputError(error.expected, path=path, given=error.given, suggestion=error.suggestion) from None


def describe_draft(plan: Plan, draft: Draft) -> str:
    """Return what drafts how many tokens and how many are accepted, as text; empty without drafts."""
    if plan.draft_length == 0:
        return ""
    by = "its own module"
    if plan.draft_parameters > 0:
        by = draft.model or f"a head of {plan.draft_parameters / 1e9:.3g}B weights"
    accepted = f"{plan.acceptance:g} accepted"
    if plan.accepted > 0:
        accepted = f"{plan.accepted:.3g} tokens a step"
    if isinstance(draft.acceptance, str):
        accepted += f" (acceptance {draft.acceptance})"
    elif isinstance(draft.acceptance, tuple):
        accepted += f" (acceptance {', '.join(f'{share:g}' for share in draft.acceptance)})"
    return f"drafts {plan.draft_length:g} token{'s' * (plan.draft_length != 1)} by {by}, {accepted}"
