"""How serving engines allot the cache of models whose layers differ, in words."""

import jax
import numpy as np
from rich.text import Text

from jaxcost.core.program import program
from jaxcost.core.pytree import canonical
from jaxcost.edge.catalog.engines import load_engine
from jaxcost.physics.memory.allocation import allotted_kinds
from jaxcost.spec.engine import Engine
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["allotment_lines", "describe_states", "describe_window"]

_ALLOTTED = program(allotted_kinds)
_ENGINES = ("vllm", "sglang", "trtllm", "llamacpp")


def allotment_lines(model: Model, plan: Plan, engine: str, context: float) -> list[Text]:
    """Return how the engine of a plan allots window, recurrent and full layers, and how other engines do.

    Nothing where all layers are alike.
    """
    kinds = jax.tree.map(float, jax.device_get(_ALLOTTED(*canonical((model, plan, context)))))
    if not kinds.window_layers and not kinds.state_layers:
        return []
    layers = [
        f"{kinds.full_layers:g} full",
        *([f"{kinds.window_layers:g} with a window"] if kinds.window_layers else []),
        *([f"{kinds.state_layers:g} recurrent"] if kinds.state_layers else []),
    ]
    lines = [f"Layers with a cache: {', '.join(layers)}."]
    if kinds.window_layers:
        lines.append(
            f"{engine} caches {kinds.window_tokens:,.0f} tokens in a window layer, {kinds.full_tokens:,.0f} in a "
            f"full one: {describe_window(plan.engine)}."
        )
    if kinds.state_layers:
        lines.append(f"{engine}, recurrent states: {describe_states(plan.engine)}.")
    if plan.engine.grouped:
        padded = kinds.full_allotted, kinds.window_allotted, kinds.state_allotted
        text = ", ".join(
            f"{allotted:g} for {layers:g}"
            for allotted, layers in zip(
                padded, (kinds.full_layers, kinds.window_layers, kinds.state_layers), strict=True
            )
            if layers
        )
        lines.append(
            f"{engine} pads groups of equal size: {text} layers; a page has {kinds.page_tokens:,.0f} tokens."
        )
    others = []
    for name in _ENGINES:
        other = load_engine(name)
        if all(np.array_equal(a, b) for a, b in zip(*map(_rule, (other, plan.engine)), strict=True)):
            continue
        parts = [describe_window(other)] if kinds.window_layers else []
        parts += [describe_states(other)] if kinds.state_layers else []
        others.append(f"{name}: {'; '.join(parts)}")
    lines += [f"Engines differ. {others[0]}", *others[1:]] if others else []
    return [Text(line, "dim") for line in lines]


def _rule(engine: Engine) -> tuple[float, ...]:
    names = "window_steps window_blocks window_share grouped state_slots state_ratio"
    return tuple(float(getattr(engine, name)) for name in names.split())


def describe_window(engine: Engine) -> str:
    """Return the tokens that a window layer caches, by the rule of an engine."""
    if engine.window_share > 0:
        return f"window layers have a pool of {float(engine.window_share):g} x the tokens of full layers"
    steps, pages = float(engine.window_steps), float(engine.window_blocks)
    text = "the window"
    if steps:
        text += f" + {steps:g} step{'s' * (steps != 1)} of at most {float(engine.step_tokens):,.0f} tokens"
    if pages:
        text += f" + {pages:g} page of {float(engine.block):g}"
    return text


def describe_states(engine: Engine) -> str:
    """Return the recurrent states that a request has, by the rule of an engine."""
    slots = float(engine.state_slots)
    states = f"{slots:g} state{'s' * (slots != 1)} a request"
    if engine.state_ratio > 0:
        return f"{states} from a pool of {float(engine.state_ratio):g} x the memory of the cache"
    return (
        f"{states}, each in a page as large as those of the cache"
        if engine.grouped
        else f"{states}, unpadded"
    )
