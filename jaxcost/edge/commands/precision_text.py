"""The description of the precision in use, as text and for JSON."""

from typing import Any

from rich.text import Text

from jaxcost.edge.catalog.checkpoints import FOLLOWERS
from jaxcost.edge.commands.precision_options import BITS
from jaxcost.edge.commands.request import Request
from jaxcost.physics.compute.precision import precision_of

__all__ = ["describe_precision", "precision_document", "precision_lines"]


def describe_precision(request: Request) -> str:
    """Return the bits of every class of numbers that the model has, and where they come from."""
    each, experts = precision_of(request.plan, request.model), request.model.experts.layers > 0
    classes = {
        "weights": each.weights,
        **({"attention's weights": each.mixers} if each.mixers != each.weights else {}),
        **({"experts": each.experts} if experts else {}),
        **({"embedding and head": each.wide} if each.wide != each.weights else {}),
        "KV": each.cache,
        "matmul inputs": each.inputs,
        **({"attention": each.attention} if each.attention != each.stream else {}),
        "residual stream": each.stream,
        "messages": each.messages,
    }
    method = request.precision.method
    origin = "recipe" if request.precision.sources["matmul_bits"].startswith("recipe") else "checkpoint"
    sources = [] if method.startswith("none") else [f"{origin}: {method}"]
    sources += ["options: " + ", ".join(request.stated_bits.values())] if request.stated_bits else []
    bits = ", ".join(f"{name} {float(value):.4g}" for name, value in classes.items())
    return f"{bits} bits ({'; '.join(sources) or 'default'})"


def precision_lines(request: Request) -> list[Text]:
    """Return the line of the precision, and one for every note on the model."""
    notes = [Text(f"Note: {note}", "yellow") for note in request.notes]
    return [Text(f"Precision: {describe_precision(request)}"), *notes]


def precision_document(request: Request) -> dict[str, Any]:
    """Return the bits of every class of numbers with where they come from, and any notes on the model, for JSON."""
    followed = {follower: name for name, followers in FOLLOWERS.items() for follower in followers}
    out = {}
    for name in BITS:
        bits, source = float(getattr(request.plan, name)), request.precision.sources[name]
        if name in request.stated_bits:
            source = request.stated_bits[name]
        elif bits == 0:
            source, bits = f"as {followed[name]}", float(getattr(request.plan, followed[name]))
        out[name] = {"value": bits, "source": source}
    return {"precision": out, **({"notes": list(request.notes)} if request.notes else {})}
