"""The options of the precision of a model, and the description of the precision in use."""

import argparse
from typing import Any, Protocol

from rich.text import Text

from jaxcost.edge.catalog.checkpoints import FOLLOWERS
from jaxcost.edge.hf.precision.stored import RECIPES, StoredPrecision
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import FORMATS, read_bits
from jaxcost.physics.compute.precision import precision_of
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "add_precision_arguments",
    "describe_precision",
    "precision_document",
    "precision_lines",
    "stated_bits",
]

_BITS = {
    "weight_bits": "weights other than routed experts",
    "expert_bits": "routed experts' weights",
    "mixer_bits": "weights of attention and recurrence (default as --weight-bits)",
    "wide_bits": "embedding, output head, routers, norms, encoder (default as --weight-bits)",
    "kv_bits": "cached keys and values",
    "activation_bits": "the residual stream",
    "matmul_bits": "inputs of matmuls with quantized weights (default as --activation-bits)",
    "attention_bits": "queries and scores of attention (default as --activation-bits)",
    "message_bits": "messages between chips (default as --activation-bits)",
}


class PreciseRequest(Protocol):
    """What the description of a precision reads of a request."""

    @property
    def model(self) -> Model:
        """The model."""
        ...

    @property
    def plan(self) -> Plan:
        """The plan, with the bits in use."""
        ...

    @property
    def precision(self) -> StoredPrecision:
        """The precision of the checkpoint."""
        ...

    @property
    def stated_bits(self) -> tuple[str, ...]:
        """Fields of the plan that options state."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the model."""
        ...


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _bits(text: str) -> float:
    try:
        return read_bits(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of bits by class of numbers, and of recipes."""
    group = parser.add_argument_group(
        "bits per element",
        f"A number in (0, 32], or one of {', '.join(FORMATS)}. Without these options a model has the precision that "
        "its checkpoint declares, else 16 bits.",
    )
    for name, text in _BITS.items():
        group.add_argument(_flag(name), type=_bits, metavar="BITS", help=text)
    group.add_argument(
        "--quantization",
        choices=tuple(RECIPES),
        metavar="NAME",
        help=f"quantize the model by a named recipe, one of {', '.join(RECIPES)}",
    )


def stated_bits(args: argparse.Namespace) -> dict[str, float]:
    """Return the fields of a plan whose bits options state."""
    return {name: bits for name in _BITS if (bits := getattr(args, name)) is not None}


def describe_precision(request: PreciseRequest) -> str:
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
    sources += ["options: " + ", ".join(map(_flag, request.stated_bits))] if request.stated_bits else []
    bits = ", ".join(f"{name} {float(value):.4g}" for name, value in classes.items())
    return f"{bits} bits ({'; '.join(sources) or 'default'})"


def precision_lines(request: PreciseRequest) -> list[Text]:
    """Return the line of the precision, and one for every note on the model."""
    notes = [Text(f"Note: {note}", "yellow") for note in request.notes]
    return [Text(f"Precision: {describe_precision(request)}"), *notes]


def precision_document(request: PreciseRequest) -> dict[str, dict[str, Any]]:
    """Return the bits of every class of numbers with where they come from, for JSON."""
    followed = {follower: name for name, followers in FOLLOWERS.items() for follower in followers}
    out = {}
    for name in _BITS:
        bits, source = float(getattr(request.plan, name)), request.precision.sources[name]
        if name in request.stated_bits:
            source = _flag(name)
        elif bits == 0:
            source, bits = f"as {followed[name]}", float(getattr(request.plan, followed[name]))
        out[name] = {"value": bits, "source": source}
    return out
