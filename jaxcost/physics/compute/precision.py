"""The bits of every class of numbers that a plan states, with its defaults resolved."""

from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["MATH_CLASSES", "Precision", "operand_bits", "precision_of"]

# Classes of matmul operands that have a precision, and so a rate, of their own.
MATH_CLASSES = ("weights", "mixers", "wide", "experts", "cache", "index")


@pytree
class Precision:
    """Bits of an element by class of numbers."""

    weights: Scalar = field("bit", "weights of dense layers and shared experts")
    mixers: Scalar = field("bit", "weights of attention and recurrence")
    experts: Scalar = field("bit", "weights of routed experts")
    wide: Scalar = field("bit", "embedding, output head, routers, norms, encoder and draft module")
    cache: Scalar = field("bit", "cached keys and values")
    stream: Scalar = field("bit", "residual stream and results of operators")
    inputs: Scalar = field("bit", "inputs of matmuls with quantized weights")
    attention: Scalar = field("bit", "queries and scores of attention")
    index: Scalar = field("bit", "keys of indexers, and their scores")
    messages: Scalar = field("bit", "elements of messages")


def precision_of(plan: Plan, model: Model) -> Precision:
    """Return the bits of a plan; a field of 0 bits takes the value of the field that its description names.

    Indexers have the bits that the model states.
    """

    def either(bits: Scalar, fallback: Scalar) -> Scalar:
        return where(bits > 0, bits, fallback)

    return Precision(
        weights=plan.weight_bits,
        mixers=either(plan.mixer_bits, plan.weight_bits),
        experts=plan.expert_bits,
        wide=either(plan.wide_bits, plan.weight_bits),
        cache=plan.kv_bits,
        stream=plan.activation_bits,
        inputs=either(plan.matmul_bits, plan.activation_bits),
        attention=either(plan.attention_bits, plan.activation_bits),
        index=model.indexer.key_bits,
        messages=either(plan.message_bits, plan.activation_bits),
    )


def operand_bits(each: Precision) -> dict[str, tuple[Scalar, Scalar]]:
    """Return the bits of the weights, or the cache, and of the inputs of a matmul, by class of `MATH_CLASSES`."""
    return {
        "weights": (each.weights, each.inputs),
        "mixers": (each.mixers, each.inputs),
        "wide": (each.wide, each.stream),
        "experts": (each.experts, each.inputs),
        "cache": (each.cache, each.attention),
        "index": (each.index, each.index),
    }
