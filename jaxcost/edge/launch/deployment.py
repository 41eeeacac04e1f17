"""What is launched: servers of one model in pools, with the plan and settings of each."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

from jaxcost.edge.catalog.parts import find, known, read_part
from jaxcost.edge.hf.source import is_hub_id
from jaxcost.edge.io.errors import InputError
from jaxcost.spec.plan import Plan

__all__ = ["PLACEHOLDER", "Deployment", "Role", "ServerPool", "repository_of"]

PLACEHOLDER = "YOUR-ORG/YOUR-MODEL"
_HUB_URL = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+?)(?:/(?:blob|tree|raw|resolve)/.*)?$")

Role = Literal["serve", "prefill", "decode"]


@dataclasses.dataclass(frozen=True)
class ServerPool:
    """Equal servers, each one replica of a plan.

    Attributes:
        plan: plan and engine settings of a server, in floats.
        replicas: number of servers.
        role: "serve" for whole requests, "prefill" and "decode" for the pools of separate prefill.
    """

    plan: Plan
    replicas: int
    role: Role = "serve"

    @property
    def chips(self) -> int:
        """Chips of one server."""
        p = self.plan
        return round(float(p.tp * p.pp * p.cp * p.dp))


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The servers of one model.

    Attributes:
        model: Hugging Face repository, or the path of a checkpoint.
        pools: one pool, or that of prefill and that of decode.
        chip: name of the chip, such as h100-sxm.
        domain: chips that one scale-up network connects.
        max_context: most tokens of a request, prompt and output; 0 where it is not known.
        stated: fields of `Engine` that the user stated.
        graphs: whether CUDA graphs are captured.
        quantization: name of the recipe that quantizes the weights at load; empty for the precision of the checkpoint.
        draft_model: repository of the draft model; empty for the model's own module.
        notes: further lines about what the launch line does not express.
    """

    model: str
    pools: tuple[ServerPool, ...]
    chip: str = ""
    domain: int = 0
    max_context: int = 0
    stated: tuple[str, ...] = ()
    graphs: bool = True
    quantization: str = ""
    draft_model: str = ""
    notes: tuple[str, ...] = ()


def repository_of(name: str) -> str:
    """Return the Hugging Face repository of a model by the name that it was loaded by.

    A Hugging Face id is returned as it is, a folder or the folder of a config.json as its path, and a name of the
    catalogue as the repository that its file was read from. Where there is none, it is `PLACEHOLDER`.
    """
    path = Path(name)
    if path.exists():
        return str(path if path.is_dir() else path.parent)
    if is_hub_id(name):
        return name
    try:
        source = str(read_part(find("models", name)).get("source", "")) if name in known("models") else ""
    except InputError:
        source = ""
    match = _HUB_URL.match(source)
    return match[1] if match else PLACEHOLDER
