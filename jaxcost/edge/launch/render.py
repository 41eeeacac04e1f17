"""The text of a launch: shell lines, a DynamoGraphDeployment, or values of the llm-d modelservice chart."""

import io
import re
import shlex
import textwrap
from typing import Any

from ruamel.yaml import YAML

from jaxcost.edge.catalog.engines import engine_file
from jaxcost.edge.hf.source import is_hub_id
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.launch.arguments import Arguments, server_arguments
from jaxcost.edge.launch.deployment import PLACEHOLDER, Deployment, ServerPool

__all__ = ["LAUNCHERS", "default_launcher", "render_launch"]

LAUNCHERS = ("vllm", "sglang", "trtllm", "dynamo", "llm-d")
_ENGINES = ("vllm", "sglang", "trtllm")
_START = {
    "vllm": ("vllm", "serve"),
    "sglang": ("python", "-m", "sglang.launch_server", "--model-path"),
    "trtllm": ("trtllm-serve",),
}
_TAG, _CLAIM = "CHOOSE-A-TAG", "YOUR-VOLUME-CLAIM"
# NIXL listens at the address of the pod.
_NIXL: list[dict[str, Any]] = [
    {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": "5557"},
]
# Kubernetes resource and accelerator type of the chart, by the start of a chip's name; NVIDIA's where no other fits.
_RESOURCES = {
    "mi": ("amd", "amd.com/gpu"),
    "gaudi": ("intel-gaudi", "habana.ai/gaudi"),
    "tpu": ("google", "google.com/tpu"),
}
_NVIDIA = ("nvidia", "nvidia.com/gpu")
_WIDTH = 100


def default_launcher(engine: str) -> str:
    """Return the launcher of an engine of the catalogue by its name: its own where it has one, else vLLM's."""
    return next((name for name in _ENGINES if engine.startswith(name)), "vllm")


def render_launch(launcher: str, deployment: Deployment, engine: str) -> str:
    """Return the text that launches a deployment.

    Lines that start with # are comments: how many servers to start, and what the options do not express. `dynamo` is a
    DynamoGraphDeployment (nvidia.com/v1beta1) of ai-dynamo, `llm-d` the values of the chart llm-d-modelservice; both as
    of November 2026.

    Args:
        launcher: one of `LAUNCHERS`.
        deployment: the deployment.
        engine: name of the engine whose settings the plan has, such as vllm-0.33.

    Raises:
        InputError: a launcher that cannot start this engine.
    """
    name = launcher if launcher in _ENGINES else default_launcher(engine)
    if launcher == "dynamo" and name == "trtllm":
        raise InputError(
            "vllm or sglang with --launch dynamo, or --launch trtllm", path="--engine", given=engine
        )
    if launcher == "llm-d" and name != "vllm":
        raise InputError("vllm with --launch llm-d", path="--engine", given=engine)
    head = []
    if default_launcher(engine) != name or not engine.startswith(_ENGINES):
        head.append(f"the settings were chosen with the memory and limits of the engine {engine}")
    if deployment.model == PLACEHOLDER:
        head.append(f"{PLACEHOLDER} stands for the repository or path of the checkpoint")
    each = [(pool, server_arguments(name, deployment, pool)) for pool in deployment.pools]
    if launcher in _ENGINES:
        return "\n".join([*map(_comment, head), *(_shell(launcher, deployment, *item) for item in each)])
    build = _dynamo if launcher == "dynamo" else _llm_d
    comments = [*head, *_merge_comments(each)]
    if _TAG in (text := _yaml(build(name, deployment, each))):
        version = engine_file(engine if engine.startswith(name) else name)[1].title
        comments.append(f"{_TAG} stands for the tag of an image with {version}")
    if _CLAIM in text:
        comments.append(f"{_CLAIM} stands for the volume that has the checkpoint")
    return "\n".join([*map(_comment, dict.fromkeys(comments)), text])


def _merge_comments(each: list[tuple[ServerPool, Arguments]]) -> list[str]:
    """Return the comments of all pools; one that not all pools have begins with the role."""
    shared = [text for text in each[0][1].comments if all(text in a.comments for _, a in each)]
    others = [f"{p.role}: {text}" for p, a in each for text in a.comments if text not in shared]
    return [*shared, *others]


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   "))


def _shell(engine: str, deployment: Deployment, pool: ServerPool, arguments: Arguments) -> str:
    servers = "one server" if pool.replicas == 1 else f"{pool.replicas} servers"
    chips = f"{pool.chips} {'chip' if pool.chips == 1 else 'chips'}"
    role = "" if pool.role == "serve" else f" for {pool.role}"
    lines = [_comment(f"{servers} of {chips}{role}, each:"), *map(_comment, arguments.comments)]
    if arguments.config:
        path = "extra-llm-api-options.yaml" if pool.role == "serve" else f"{pool.role}-options.yaml"
        arguments.options.append(("--config", path))
        lines += [f"cat > {path} <<'EOF'", _yaml(arguments.config).rstrip(), "EOF"]
    words = [shlex.join([*_START[engine], deployment.model])]
    words += [shlex.join(option) for option in arguments.options]
    return "\n".join([*lines, " \\\n  ".join(words)])


def _resource(chip: str) -> tuple[str, str]:
    return next((value for prefix, value in _RESOURCES.items() if chip.startswith(prefix)), _NVIDIA)


def _dynamo(engine: str, deployment: Deployment, each: list[tuple[ServerPool, Arguments]]) -> dict[str, Any]:
    image = f"nvcr.io/nvidia/ai-dynamo/{engine}-runtime:{_TAG}"
    components: list[dict[str, Any]] = [
        {
            "name": "Frontend",
            "type": "frontend",
            "replicas": 1,
            "podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}},
        }
    ]
    for pool, arguments in each:
        model = ["--model" if engine == "vllm" else "--model-path", deployment.model]
        role = []
        if pool.role != "serve" and engine == "vllm":
            role = ["--disaggregation-mode", pool.role]
        elif pool.role != "serve":
            role = ["--disaggregation-transfer-backend", "nixl"]
        container = {
            "name": "main",
            "image": image,
            "command": ["python3", "-m", f"dynamo.{engine}"],
            "args": [*model, *arguments.words, *role],
            "resources": {"limits": {_resource(deployment.chip)[1]: str(pool.chips)}},
        }
        components.append(
            {
                "name": {"serve": "Worker", "prefill": "PrefillWorker", "decode": "DecodeWorker"}[pool.role],
                "type": "worker" if pool.role == "serve" else pool.role,
                "replicas": pool.replicas,
                "podTemplate": {"spec": {"containers": [container]}},
            }
        )
    return {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": _dns_name(deployment.model)},
        "spec": {"components": components},
    }


def _llm_d(engine: str, deployment: Deployment, each: list[tuple[ServerPool, Arguments]]) -> dict[str, Any]:
    kind, resource = _resource(deployment.chip)
    values: dict[str, Any] = {
        "modelArtifacts": {"name": deployment.model, "uri": _uri(deployment.model)},
        "accelerator": {"type": kind},
        "multinode": any(0 < deployment.domain < pool.chips for pool, _ in each),
        "routing": {"proxy": {"enabled": len(each) > 1}},
        "decode": {"create": False},
        "prefill": {"create": False},
    }
    # The chart writes these two options from `parallelism`.
    of_chart = ("--tensor-parallel-size", "--data-parallel-size")
    for pool, arguments in each:
        words = [word for option in arguments.options if option[0] not in of_chart for word in option]
        tp, dp = (round(float(x)) for x in (pool.plan.tp, pool.plan.dp))
        container = {
            "name": "vllm",
            "image": f"ghcr.io/llm-d/llm-d-cuda:{_TAG}",
            "modelCommand": "vllmServe",
            "args": words,
            "mountModelVolume": True,
            **({} if pool.role == "serve" else {"env": [dict(entry) for entry in _NIXL]}),
            "resources": {f: {resource: str(pool.chips)} for f in ("limits", "requests")},
        }
        values["prefill" if pool.role == "prefill" else "decode"] = {
            "create": True,
            "replicas": pool.replicas,
            "parallelism": {"tensor": tp, "data": dp, "dataLocal": dp, "workers": 1},
            "containers": [container],
        }
    return values


def _uri(model: str) -> str:
    """Return where the chart finds a checkpoint: on the hub, or on a volume."""
    return f"hf://{model}" if is_hub_id(model) else f"pvc://{_CLAIM}/{model.lstrip('/')}"


def _dns_name(model: str) -> str:
    """Return a name that Kubernetes allows: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")[:50] or "model"


def _yaml(document: dict[str, Any]) -> str:
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 4096
    writer.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    writer.dump(document, buffer)
    return buffer.getvalue()
