"""Measurements: columns of work, the seconds of each row, and its file and line. Host side, never traced."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

__all__ = ["FAMILIES", "Measurements", "concatenate"]

# The columns of work of each family: (unit, meaning). Sizes are per chip unless stated otherwise.
FAMILIES: dict[str, dict[str, tuple[str, str]]] = {
    "matmul": {
        "rows": ("1", "rows of the activation, the tokens (m)"),
        "columns": ("1", "output features (n)"),
        "inner": ("1", "input features (k)"),
        "weight_bits": ("bit", "bits of a stored weight"),
        "activation_bits": ("bit", "bits of an operand in the engine"),
    },
    "attention": {
        "sequences": ("1", "sequences of the batch"),
        "queries": ("1", "new tokens of a sequence"),
        "keys": ("1", "tokens attended to, the new ones included"),
        "heads": ("1", "query heads"),
        "kv_heads": ("1", "key and value heads"),
        "head_dim": ("1", "features of a head"),
        "window": ("1", "length of the sliding window; 0 for none"),
        "kv_bits": ("bit", "bits of a stored key or value"),
        "compute_bits": ("bit", "bits of an operand in the engine"),
    },
    "latent_attention": {
        "sequences": ("1", "sequences of the batch"),
        "queries": ("1", "new tokens of a sequence"),
        "keys": ("1", "tokens attended to, the new ones included"),
        "heads": ("1", "query heads"),
        "kv_bits": ("bit", "bits of a stored latent"),
        "compute_bits": ("bit", "bits of an operand in the engine"),
        "projection_bits": ("bit", "bits of the weights of the projections; 0 where they are not measured"),
        "module": ("1", "1 for the whole block with its projections, 0 for the core alone"),
    },
    "mixture": {
        "tokens": ("1", "tokens of the whole expert-parallel group"),
        "hidden": ("1", "hidden size of the model"),
        "width": ("1", "intermediate size of one whole expert"),
        "top_k": ("1", "experts of a token"),
        "experts": ("1", "routed experts of the layer"),
        "tensor_parallel": ("1", "chips that share an expert"),
        "expert_parallel": ("1", "chips that share the experts"),
        "weight_bits": ("bit", "bits of a stored weight, block scales included"),
        "activation_bits": ("bit", "bits of an operand in the engine"),
        "skew": ("1", "exponent of the power law of routing; 0 for balanced"),
    },
    "collective": {
        "ranks": ("1", "participating chips"),
        "bytes": ("B", "bytes of the whole buffer; of an all-gather, of the receive buffer"),
    },
    "all_to_all": {
        "ranks": ("1", "chips that share the experts"),
        "tokens": ("1", "tokens that one chip sends or receives back"),
        "hidden": ("1", "hidden size of the model"),
        "top_k": ("1", "experts of a token"),
        "experts": ("1", "routed experts of the layer"),
        "bits": ("bit", "bits of an element on the wire; nan where unknown"),
    },
    "serving": {
        "input": ("1", "tokens of a prompt"),
        "output": ("1", "tokens of an answer"),
        "concurrency": ("1", "requests in flight; nan where unreported"),
        "batch": ("1", "requests in flight in one replica; nan where unreported"),
        "chips": ("1", "chips of the deployment"),
        "tp": ("1", "tensor parallel degree"),
        "pp": ("1", "pipeline parallel degree"),
        "ep": ("1", "expert parallel degree; nan where unreported"),
        "attention_dp": ("1", "data parallel degree of attention; nan where unreported"),
        "weight_bits": ("bit", "bits of a stored weight; nan where unreported"),
        "kv_bits": ("bit", "bits of a stored key or value; nan where unreported"),
    },
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measurements:
    """Measured rows of one family of work.

    Attributes:
        family: a key of `FAMILIES`.
        work: a float64 column for each name of `FAMILIES[family]`.
        seconds: time of each row; of "serving" its value, in the SI unit of the label "unit".
        labels: columns of strings, such as chip, library, version, kernel, precision, model; "" where unknown.
        source: origin of the rows.
        file: file of the rows; with several files, the label "file" has that of each row.
        line: line of each row in its file, counted from 1 with the header; row number in a file without lines.
    """

    family: str
    work: dict[str, np.ndarray]
    seconds: np.ndarray
    labels: dict[str, np.ndarray]
    source: str
    file: str
    line: np.ndarray

    def __post_init__(self) -> None:
        """Refuse columns that are not those of the family, or of unequal length."""
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is none of {', '.join(FAMILIES)}")
        if set(self.work) != set(FAMILIES[self.family]):
            raise ValueError(f"the work of {self.family} is {', '.join(FAMILIES[self.family])}")
        columns = {**self.work, **self.labels, "line": self.line}
        odd = [name for name, column in columns.items() if len(column) != len(self.seconds)]
        if odd:
            raise ValueError(f"{', '.join(odd)}: not as long as seconds, {len(self.seconds)} rows")

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.seconds)

    def where(self, mask: Any) -> "Measurements":
        """Return the rows where a mask is true, or the rows of indices in their order."""
        mask = np.asarray(mask)
        keep = mask if mask.dtype == bool else mask.astype(np.intp)
        if keep.dtype == bool and keep.shape != (len(self),):
            raise ValueError(f"a mask of {keep.shape} for {len(self)} rows")
        return dataclasses.replace(
            self,
            work={name: column[keep] for name, column in self.work.items()},
            seconds=self.seconds[keep],
            labels={name: column[keep] for name, column in self.labels.items()},
            line=self.line[keep],
        )

    def select(self, **labels: str | Collection[str]) -> "Measurements":
        """Return the rows whose labels equal a value, or one of a collection of values.

        Raises:
            ValueError: an unknown label.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in labels.items():
            if name not in self.labels:
                raise ValueError(f"label {name!r} is none of {', '.join(self.labels)}")
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            keep &= np.isin(self.labels[name].astype(str), values)
        return self.where(keep)

    def values(self, label: str) -> list[str]:
        """List the distinct values of a label, sorted."""
        return sorted(set(self.labels[label].tolist()))

    def place(self, row: int) -> str:
        """Return the location of a row, as `file:line`."""
        file = self.labels["file"][row] if "file" in self.labels else self.file
        return f"{file}:{int(self.line[row])}"


def concatenate(parts: Sequence[Measurements]) -> Measurements:
    """Concatenate measurements of one family; a label that some of them do not have is "" there.

    Raises:
        ValueError: no measurements, or several families.
    """
    if not parts:
        raise ValueError("no measurements to concatenate")
    families = {part.family for part in parts}
    if len(families) > 1:
        raise ValueError(f"rows of several families: {', '.join(sorted(families))}")
    files = list(dict.fromkeys(part.file for part in parts))
    names = list(dict.fromkeys(name for part in parts for name in part.labels))
    if len(files) > 1 and "file" not in names:
        names.append("file")

    def label(part: Measurements, name: str) -> np.ndarray:
        absent = part.file if name == "file" else ""
        return part.labels.get(name, np.full(len(part), absent, dtype=object)).astype(object)

    return Measurements(
        family=parts[0].family,
        work={name: np.concatenate([part.work[name] for part in parts]) for name in parts[0].work},
        seconds=np.concatenate([part.seconds for part in parts]),
        labels={name: np.concatenate([label(part, name) for part in parts]) for name in names},
        source=", ".join(dict.fromkeys(part.source for part in parts if part.source)),
        file="; ".join(files),
        line=np.concatenate([part.line for part in parts]),
    )
