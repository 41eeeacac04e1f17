"""`recommend`: the cheapest plan within the limits against `serve`, the replay, and the launch lines."""

import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shlex
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from ruamel.yaml import YAML

import jaxcost as jc
from jaxcost.core.program import execution
from jaxcost.edge.catalog.engines import engine_file
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.launch import (
    Deployment,
    ServerPool,
    default_launcher,
    render_launch,
    repository_of,
    server_arguments,
)
from jaxcost.explore.recommend import draw_trace, verification, verify
from jaxcost.explore.recommend.candidates import Settings, evaluate_candidates, list_degrees
from jaxcost.physics.compute.shards import can_shard
from tests.test_cli import run

SYSTEM = "h100-sxm-x2"
TRAFFIC = jc.Traffic(prompt=1024, output=256, rate=20, ttft_target=0.5, tpot_target=0.02)
ENGINES = ("vllm-0.33", "sglang-0.5", "trtllm-1")


@pytest.fixture(scope="module", autouse=True)
def interpreted():
    with execution("interpret"):
        yield


@pytest.fixture(scope="module")
def parts():
    system, model = jc.load_system(SYSTEM, efficiency="typical"), jc.load_model("llama-3.1-8b")
    return system, model, jc.Plan(kv_bits=8.0, engine=jc.load_engine("vllm-0.33", SYSTEM))


@pytest.fixture(scope="module")
def result(parts):
    return jc.recommend(*parts[:2], TRAFFIC, parts[2], sequences=[256])


def plan_of(pool_plan, **changes):
    return jax.tree.map(float, dataclasses.replace(pool_plan, **changes))


def test_winner_is_the_cheapest_of_plans_evaluated_alone(parts, result):
    """No plan and setting within the limits is cheaper, evaluated one at a time by `serve`; the numbers are its own."""
    system, model, plan = parts
    best = result.best
    assert result.feasible and result.evaluated == 12 and result.met > 0
    for c in (best, result.candidates[-1]):
        alone = jc.serve(c.system, model, TRAFFIC, c.plan)
        for name in ("usd_per_mtok", "ttft", "tpot", "replicas", "chips"):
            assert float(getattr(alone, name)) == pytest.approx(float(getattr(c.service, name)), rel=1e-4)
        mean = float(alone.in_flight)
        expected = 1 - (mean + 3 * mean**0.5) / c.plan.engine.sequences
        assert c.margins["sequences"] == pytest.approx(expected, rel=1e-3)
    assert float(best.service.ttft) <= 0.5 and float(best.service.tpot) <= 0.02
    assert float(best.service.margins.worst) >= -1e-4
    cheaper = 0
    for tp, budget in ((1, 2048.0), (2, 16384.0), (2, 4096.0)):
        engine = dataclasses.replace(plan.engine, step_tokens=budget, sequences=256.0)
        one = dataclasses.replace(system, chips=np.float32(tp))
        service = jc.serve(one, model, TRAFFIC, dataclasses.replace(plan, tp=float(tp), engine=engine))
        fits = float(service.margins.worst) >= -1e-4
        cheaper += fits and float(service.usd_per_mtok) < best.usd_per_mtok * (1 - 1e-3)
    assert cheaper == 0
    costs = [c.usd_per_mtok for c in result.candidates if c.feasible]
    assert len(costs) > 1 and all(b >= a * (1 - 1e-3) for a, b in itertools.pairwise(costs))


def test_a_limit_of_sequences_that_is_too_small_is_not_recommended(parts):
    """Requests in flight beyond the limit of the engine violate a margin that `serve` does not have."""
    few = jc.recommend(*parts[:2], TRAFFIC, parts[2], sequences=[2])
    assert not few.feasible and few.best.exceeded[0] == "sequences"


def test_degrees_are_those_that_engines_have():
    """Experts are on no rank or on all; dp above 1 only where experts are distributed over it."""
    dense, mixture = jc.load_model("llama-3.1-8b"), jc.load_model("gpt-oss-120b")
    assert {(d.tp, d.pp) for d in list_degrees(dense, 4)} == {(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4)}
    degrees = list_degrees(mixture, 8)
    assert {d.ep for d in degrees if d.dp > 1} == {2, 4, 8}
    assert all(d.ep in (1, d.tp * d.dp) for d in degrees)
    assert all(bool(can_shard(mixture, jc.Plan(**d._asdict()))) for d in degrees)
    assert all(d.tp == 2 for d in list_degrees(mixture, 8, fixed={"tp": 2}))


def test_limits_that_nothing_meets_name_the_nearest(parts):
    """The first candidate is then the one with the largest worst margin."""
    strict = dataclasses.replace(TRAFFIC, tpot_target=1e-5)
    result = jc.recommend(*parts[:2], strict, parts[2], sequences=[256])
    assert not result.feasible and result.met == 0
    assert result.best.worst == max(c.worst for c in result.candidates)
    assert result.best.exceeded[0] == "tpot"


@pytest.fixture(scope="module")
def pool(parts):
    """A prefill pool and a decode pool of one chip."""
    settings = Settings((8192.0,), (256.0,), (1.0,))
    options = {"max_replica_chips": 2, "fixed": {"tp": 1, "pp": 1}, "split": True}
    pools = evaluate_candidates(*parts[:2], TRAFFIC, parts[2], settings, **options)
    assert [c.prefill[1].tp for c in pools] == [1, 2]
    return pools[1]


def test_split_pools_are_those_of_serve(parts, pool):
    """A prefill pool has its own degrees, and its chips are counted."""
    alone = jc.serve(pool.system, parts[1], TRAFFIC, pool.plan, prefill=pool.prefill)
    assert float(alone.usd_per_mtok) == pytest.approx(pool.usd_per_mtok, rel=1e-4)
    assert float(alone.chips) == pool.chips == pool.replicas + 2 * pool.prefill_replicas


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degrees": {"tp": 3}}, "no plan of at most 2 chips"),
        ({"sequences": []}, "sequences takes at least one number"),
        ({"step_tokens": [-1]}, "step_tokens takes at least one number"),
    ],
)
def test_recommend_refuses(parts, options, message):
    with pytest.raises(ValueError, match=message):
        jc.recommend(*parts[:2], TRAFFIC, parts[2], **options)
    with pytest.raises(ValueError, match="rate above 0"):
        jc.recommend(*parts[:2], dataclasses.replace(TRAFFIC, rate=0.0), parts[2])


TRACE = types.SimpleNamespace(prompt=np.asarray([1024, 1024]), output=np.asarray([1, 511]), rate=20.0)


class Replayed:
    """What `replay` returns, as far as `verify` reads it; latencies fall with the replicas."""

    def __init__(self, replicas, prefills, cost):
        self.rejected = np.zeros(3, bool)
        self.replicas, self.prefills = replicas, prefills
        self.usd_per_mtok = cost * replicas

    def percentile(self, metric, q):
        assert q == 99
        return {"ttft": 2.0 / (self.prefills or self.replicas), "tpot": 0.04 / self.replicas}[metric]


def test_replicas_grow_until_the_percentiles_hold(parts, result):
    """Both limits hold in the last replay and not in the one before it; the cheapest of the replayed wins."""
    calls = []

    def replay(system, model, trace, plan, *, prefill, replicas, rate, prices, knobs):
        calls.append((float(plan.tp), replicas))
        assert trace is TRACE and (rate, prefill) == (20.0, None)
        return Replayed(replicas, 0, float(plan.tp))

    without_rate = dataclasses.replace(TRAFFIC, rate=0.0, prompt=1.0, output=1.0)
    found = jc.recommend(
        *parts[:2], without_rate, parts[2], sequences=[256], trace=TRACE, verified=2, replay=replay
    )
    replayed = [c for c in found.candidates if c.verification]
    assert len(replayed) == 2 and found.best is replayed[0] and found.feasible
    for c in replayed:
        v = c.verification
        # 2 s / replicas <= 0.5 s takes 4 replicas.
        assert v.holds and v.replicas == c.replicas >= 4
        counts = [n for tp, n in calls if tp == float(c.plan.tp)]
        assert counts == sorted(counts) and v.usd_per_mtok == v.replicas * float(c.plan.tp)
    assert found.best.usd_per_mtok == min(c.usd_per_mtok for c in replayed)
    service = found.best.service
    assert (float(service.rate), float(service.output)) == (20, 256)


def test_the_pool_that_misses_its_limit_grows(parts, pool):
    """TTFT is that of the prefill pool; a request that is rejected ends the replays."""
    pools = []

    def replay(*args, prefill, replicas, **options):
        pools.append((replicas, prefill[2]))
        return Replayed(replicas, prefill[2], 1.0)

    (grown,) = verify([pool], "trace", model=parts[1], traffic=TRAFFIC, replay=replay)
    assert grown.verification.holds and grown.prefill_replicas >= 4
    assert pools[0] == (pool.replicas, pool.prefill_replicas)

    def rejecting(*args, **options):
        outcome = Replayed(100, 100, 1.0)
        outcome.rejected[0] = True
        return outcome

    (rejected,) = verify([pool], "trace", model=parts[1], traffic=TRAFFIC, replay=rejecting)
    assert not rejected.feasible and rejected.verification.rounds == 1


def test_drawn_requests_have_the_means_of_the_traffic():
    trace = draw_trace(TRAFFIC, 20_000)
    assert np.mean(trace.prompt) == pytest.approx(1024, rel=0.05)
    assert np.var(trace.output) / np.mean(trace.output) ** 2 == pytest.approx(1, rel=0.25)
    assert trace.arrival[0] == 0 and 20_000 / trace.arrival[-1] == pytest.approx(20, rel=0.03)


# Launch lines


def deployment(engine, plan, **options):
    pools = options.pop("pools", None) or (ServerPool(plan, 3),)
    return Deployment("org/model", pools, chip="h100-sxm", domain=8, **options)


def shell_words(text):
    """Return the words of the command in a launch line, comments and files left out."""
    text = re.sub(r"^cat > .*?^EOF$", "", text, flags=re.S | re.M)
    return shlex.split(text, comments=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "degrees", [{"tp": 4.0, "pp": 2.0}, {"tp": 2.0, "dp": 4.0, "ep": 8.0}, {"tp": 8.0, "ep": 8.0}]
)
def test_launch_lines_have_the_degrees_and_limits_of_the_plan(engine, degrees):
    e = dataclasses.replace(jc.load_engine(engine, SYSTEM), step_tokens=4096.0, sequences=256.0)
    plan = plan_of(jc.Plan(kv_bits=8.0, engine=e, **degrees))
    name = default_launcher(engine)
    text = render_launch(name, deployment(engine, plan, max_context=8192), engine)
    words = shell_words(text)
    value = lambda flag: words[words.index(flag) + 1]  # noqa: E731
    tp, pp, dp, ep = (round(float(getattr(plan, d))) for d in ("tp", "pp", "dp", "ep"))
    across = dp if ep > tp else 1
    assert "# 3 servers of 8 chips, each:" in text and "org/model" in words
    if name == "vllm":
        assert words[:3] == ["vllm", "serve", "org/model"]
        assert int(value("--tensor-parallel-size")) == tp
        assert ("--enable-expert-parallel" in words) == (ep > 1)
        assert int(value("--data-parallel-size") if dp > 1 else 1) == dp
        assert (value("--max-num-batched-tokens"), value("--max-num-seqs")) == ("4096", "256")
        assert (value("--kv-cache-dtype"), value("--gpu-memory-utilization")) == ("fp8", "0.92")
        assert value("--max-model-len") == "8192"
    elif name == "sglang":
        assert int(value("--tp-size")) == tp * across
        assert int(value("--attn-dp-size") if across > 1 else 1) == across
        assert int(value("--ep-size") if ep > 1 else 1) == ep
        # SGLang divides both limits by the ranks of attention.
        assert int(value("--chunked-prefill-size")) == 4096 * across
        assert int(value("--max-running-requests")) == 256 * across
        assert value("--kv-cache-dtype") == "fp8_e4m3"
    else:
        assert int(value("--tp_size")) == tp * across
        assert int(value("--ep_size") if ep > 1 else 1) == ep
        assert (value("--max_num_tokens"), value("--max_batch_size")) == ("4096", "256")
        config = YAML(typ="safe").load(re.search(r"<<'EOF'\n(.*?)^EOF$", text, re.S | re.M)[1])
        assert config["kv_cache_config"] == {"dtype": "fp8"}
        assert config.get("enable_attention_dp", False) == (across > 1)
    flag = {"vllm": "--pipeline-parallel-size", "sglang": "--pp-size", "trtllm": "--pp_size"}[name]
    assert int(value(flag) if pp > 1 else 1) == pp


@pytest.mark.parametrize(
    ("launcher", "engine"), [("dynamo", "vllm-0.33"), ("dynamo", "sglang-0.5"), ("llm-d", "vllm-0.33")]
)
def test_manifests_have_the_pools_of_the_deployment(launcher, engine):
    plan = plan_of(jc.Plan(tp=4.0, pp=2.0, engine=jc.load_engine(engine, SYSTEM)))
    prefill = plan_of(plan, tp=2.0, pp=1.0)
    pools = (ServerPool(prefill, 5, "prefill"), ServerPool(plan, 3, "decode"))
    text = render_launch(launcher, deployment(engine, plan, pools=pools), engine)
    document = YAML(typ="safe").load(text)
    if launcher == "dynamo":
        assert document["kind"] == "DynamoGraphDeployment" and document["apiVersion"].startswith(
            "nvidia.com/"
        )
        by_type = {c["type"]: c for c in document["spec"]["components"]}
        containers = {n: c["podTemplate"]["spec"]["containers"][0] for n, c in by_type.items()}
        replicas = {n: c["replicas"] for n, c in by_type.items()}
    else:
        assert (
            document["routing"]["proxy"]["enabled"] and document["modelArtifacts"]["uri"] == "hf://org/model"
        )
        containers = {n: document[n]["containers"][0] for n in ("prefill", "decode")}
        replicas = {n: document[n]["replicas"] for n in ("prefill", "decode")}
        assert document["decode"]["parallelism"]["tensor"] == 4
    assert (replicas["prefill"], replicas["decode"]) == (5, 3)
    limits = {n: containers[n]["resources"]["limits"]["nvidia.com/gpu"] for n in ("prefill", "decode")}
    assert limits == {"prefill": "2", "decode": "8"}
    args = containers["decode"]["args"]
    assert all(isinstance(word, str) for word in args)
    flag = "--pp-size" if engine.startswith("sglang") else "--pipeline-parallel-size"
    assert args[args.index(flag) + 1] == "2"


def test_what_a_launch_line_cannot_express_is_said():
    plan = plan_of(
        jc.Plan(tp=16.0, ep=4.0, kv_bits=6.0, draft_length=3.0, engine=jc.load_engine("vllm-0.33", SYSTEM))
    )
    text = render_launch("vllm", deployment("vllm", plan, quantization="w4a16"), "vllm-0.33")
    for words in (
        "vLLM distributes them over all 16",
        "6 bits is no type",
        "scale-up domain",
        "w4a16",
        "--max-model-len",
    ):
        assert words in text.replace("\n#   ", " "), words
    assert '"num_speculative_tokens": 3' in text
    other = render_launch("sglang", deployment("vllm", plan), "typical")
    assert "were chosen with the memory and limits of the engine typical" in other
    with pytest.raises(InputError, match="vllm with --launch llm-d"):
        render_launch("llm-d", deployment("sglang", plan), "sglang-0.5")


def test_repositories_are_those_of_the_catalogue(tmp_path):
    assert repository_of("gpt-oss-120b") == "openai/gpt-oss-120b"
    assert repository_of("deepseek-ai/DeepSeek-V3") == "deepseek-ai/DeepSeek-V3"
    assert repository_of(str(tmp_path)) == str(tmp_path)
    assert repository_of("gpt-3-175b") == "YOUR-ORG/YOUR-MODEL"


def all_flags(engine):
    """Return every option that a launch line of an engine may have."""
    flags = set()
    for degrees in ({"tp": 2.0, "pp": 2.0}, {"tp": 2.0, "dp": 2.0, "ep": 4.0}, {"dp": 2.0}):
        for role in ("serve", "prefill", "decode"):
            e = dataclasses.replace(
                jc.load_engine(engine, SYSTEM), sequences=64.0, mixed=1.0, memory_share=0.8, cache_share=0.8
            )
            plan = plan_of(jc.Plan(kv_bits=8.0, draft_length=2.0, engine=e, **degrees))
            pool = ServerPool(plan, 1, role)
            options = {"max_context": 4096, "graphs": False, "stated": ("block",), "quantization": "fp8"}
            arguments = server_arguments(
                default_launcher(engine), deployment(engine, plan, pools=(pool,), **options), pool
            )
            flags |= {option[0] for option in arguments.options}
    return flags


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_have_the_names_of_the_catalogue(engine):
    names = {f"--{name}" for name in engine_file(engine)[1].options.model_dump().values() if name}
    flags = {flag.replace("_", "-") for flag in all_flags(engine)}
    assert names <= flags


def source_of(package):
    """Return the folder of an engine's source: JAXCOST_<PACKAGE>_SOURCE, else of the installed package."""
    folder = os.environ.get(f"JAXCOST_{package.upper()}_SOURCE")
    if folder is None:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            pytest.skip(f"{package} is not installed, and JAXCOST_{package.upper()}_SOURCE is not set")
        folder = Path(spec.origin).parent
    return Path(folder)


def test_options_exist_in_the_source_of_vllm():
    text = (source_of("vllm") / "engine" / "arg_utils.py").read_text()
    assert [flag for flag in all_flags("vllm-0.33") if f'"{flag}"' not in text] == []


def test_options_exist_in_the_source_of_sglang():
    fields = source_of("sglang") / "srt" / "arg_groups" / "fields"
    text = "\n".join(path.read_text() for path in fields.glob("*.py"))
    names = {"--" + name.replace("_", "-") for name in re.findall(r"^    (\w+): A\[", text, re.M)}
    assert all_flags("sglang-0.5") - names == set()


# The command

COMMAND = ["recommend", "llama-3.1-8b", "--system", SYSTEM, "--efficiency", "typical", "--rate", "20"]
COMMAND += [
    "--prompt",
    "1024",
    "--output",
    "256",
    "--max-num-seqs",
    "256",
    "--max-num-batched-tokens",
    "8192",
]


def test_command_prints_verdict_runner_up_and_launch_line(capsys, tmp_path):
    status, out, err = run(
        capsys, *COMMAND, "--ttft", "500ms", "--tpot", "20ms", "--plot", str(tmp_path / "a.svg")
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].startswith("Fits: ") and "USD per million output tokens" in out
    for text in (
        "Runner-up: ",
        "Evaluated by",
        "closed form",
        "vllm serve meta-llama/Llama-3.1-8B",
        "limits of means",
    ):
        assert text in out
    assert (tmp_path / "a.svg").stat().st_size > 0
    assert "--max-num-batched-tokens" in shell_words(out[out.index("\n# ") :])
    assert max(map(len, lines)) <= 140


def test_command_replays_the_cheapest_plans(capsys, monkeypatch):
    """The table says which plans were replayed, and which have means alone."""
    monkeypatch.setattr(
        verification, "replay_trace", lambda *args, replicas, **options: Replayed(replicas, 0, 1.0)
    )
    status, out, err = run(capsys, *COMMAND, "--ttft", "500ms", "--tpot", "20ms", "--verify", "1")
    assert (status, err) == (0, "")
    assert "limits of p99 in the replay" in out and "TTFT, p99 of the replay" in out
    ends = [line for line in out.splitlines() if "Fits; " in line]
    assert sum(" p99 " in line for line in ends) == 1 and sum(" means " in line for line in ends) == 2


def test_json_of_the_command_and_status_without_a_plan(capsys):
    options = ["--ttft", "500ms", "--tpot", "10us", "--require-fit", "--json", "--kv-cache-dtype", "auto,fp8"]
    status, out, err = run(capsys, *COMMAND, *options)
    assert (status, err) == (3, "")
    document = json.loads(out)
    assert not document["feasible"] and document["within_limits"] == 0 and document["binding"] == "tpot"
    assert document["best"]["margins"]["tpot"] == max(p["margins"]["tpot"] for p in document["plans"])
    assert {p["kv_bits"] for p in document["plans"]} == {8.0, 16.0}
    assert document["launch"]["text"].startswith("# this plan exceeds a limit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "0"], "--rate: got 0.0; expected a positive number"),
        (["--launch", "vlm"], "--launch: got 'vlm'"),
        (["--tp", "3"], "--system: got 'h100-sxm-x2'; expected no plan of at most 2 chips"),
        (["--percentile", "0"], "--percentile: got 0.0; expected a percentile"),
        (["--model", "llama-3.1-70b"], "MODEL: got 'llama-3.1-8b'; expected one model"),
        (["--chunk", "512"], "--chunk: got 512.0; expected 0"),
        (["--trace", "x.csv"], "--prompt: got 1024.0; expected no lengths with --trace"),
    ],
)
def test_command_refuses_in_one_line(capsys, options, message):
    status, out, err = run(capsys, *COMMAND, *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"jaxcost recommend: {message}") and err.count("\n") == 1
