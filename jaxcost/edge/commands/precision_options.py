"""The options of the precision of a model."""

import argparse

from jaxcost.edge.hf.precision.stored import RECIPES
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import FORMATS, read_bits

__all__ = ["BITS", "add_precision_arguments", "flag_of", "stated_bits"]

BITS = {
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


def flag_of(name: str) -> str:
    """Return the option of a field of a plan."""
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
    for name, text in BITS.items():
        group.add_argument(flag_of(name), type=_bits, metavar="BITS", help=text)
    group.add_argument(
        "--quantization",
        choices=tuple(RECIPES),
        metavar="NAME",
        help=f"quantize the model by a named recipe, one of {', '.join(RECIPES)}",
    )


def stated_bits(args: argparse.Namespace) -> dict[str, float]:
    """Return the fields of a plan whose bits options state."""
    return {name: bits for name in BITS if (bits := getattr(args, name)) is not None}
