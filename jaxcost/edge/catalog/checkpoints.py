"""A checkpoint: a model with the precision its files declare, and what its reader noted."""

import dataclasses
from typing import Any

from jaxcost.core.program import program
from jaxcost.edge.catalog.loaders import find_model, read_files
from jaxcost.edge.catalog.reading import canonical
from jaxcost.edge.hf.precision.stored import StoredPrecision, apply_recipe, read_precision
from jaxcost.edge.hf.source import size_difference
from jaxcost.physics.compute.shards import StoredParameters, shard, stored_parameters
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["FOLLOWERS", "Checkpoint", "load_checkpoint"]

# Bits that follow another field of a plan where they are not stated.
FOLLOWERS = {
    "weight_bits": ("mixer_bits", "wide_bits"),
    "activation_bits": ("matmul_bits", "attention_bits", "message_bits"),
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model as its files describe it.

    Attributes:
        name: the name it was loaded by.
        model: its shape.
        precision: bits of each class of numbers, and where each comes from.
        notes: what was assumed, left out or ignored.
    """

    name: str
    model: Model
    precision: StoredPrecision
    notes: tuple[str, ...] = ()

    def plan(self, **options: Any) -> Plan:
        """Return a plan in the precision of the checkpoint; `options` are fields of the plan and come first.

        A stated `weight_bits` holds for mixers and wide weights too, and a stated `activation_bits` for the inputs of
        matmuls, attention and messages, unless these are stated themselves.
        """
        bits = self.precision.plan_options()
        for name, followers in FOLLOWERS.items():
            bits |= {f: 0.0 for f in followers if name in options or bits[f] == bits[name]}
        return Plan(**{**bits, **options})


def load_checkpoint(
    name: str, *, quantization: str | None = None, download: bool = False, strict: bool = False
) -> Checkpoint:
    """Load a model with the precision in which it is stored.

    Args:
        name: as for `load_model`.
        quantization: one of fp8, w4a16, w8a8, nvfp4 and mxfp4, to quantize a 16-bit model by a named recipe.
        download: whether to fetch the configuration files of a Hugging Face id that is not found here.
        strict: whether to refuse a type of model that is read by a known layout of the same fields.

    Raises:
        InputError: no such name, a config that cannot be read, or an unknown method of quantization.
    """
    files = find_model(name, download=download)
    read = read_files(files, strict=strict)
    model, notes = canonical(read.model), read.notes
    if quantization is None:
        precision = read_precision(files.config, files.hf_quant_config, file=files.file)
    else:
        precision = apply_recipe(quantization, files.config, file=files.file)
    notes = (*notes, *precision.notes)
    if files.total_size is not None and quantization is None:
        difference = size_difference(files.total_size, stored_bytes(model, precision))
        notes = (*notes, difference) if difference else notes
    return Checkpoint(name, model, precision, notes)


def stored_bytes(model: Model, precision: StoredPrecision) -> float:
    """Return the bytes of all tensors of a model, its multi-token-prediction module included."""
    p = _count_parameters(model)
    if precision.method == "none: float32":  # served in 16 bits
        return float(p.total + model.draft_parameters) * 4
    bits = p.mixers * precision.mixer_bits + p.feed_forward * precision.weight_bits
    bits += p.experts * precision.expert_bits + (p.routers + p.tables + p.other) * precision.wide_bits
    return float(bits + model.draft_parameters * precision.draft_bits) / 8


@program
def _count_parameters(model: Model) -> StoredParameters:
    return stored_parameters(model, shard(model, Plan(), 0.0))
