"""The requests that the experiments on cost serve, and the cheapest plan and batch for them on a chip."""

import dataclasses
import functools
import itertools

import numpy as np

import jaxcost as jc
from study import Case, evaluate

Key = tuple[str, str]  # model and chip
EIGHT = {"weight_bits": 8.0, "kv_bits": 8.0, "activation_bits": 8.0}
NVFP4 = 4.5  # bits, with the scale of each 16
CLOSER = (1.0, 0.7, 0.85, 1.2, 1.4, 1.65)  # batches about the best power of two


@dataclasses.dataclass(frozen=True)
class Service:
    """Requests, precisions, and the plans and batches a chip that are tried."""

    traffic: jc.Traffic
    bits: dict[str, float]
    chips: tuple[int, ...]
    degrees: tuple[int, ...]  # tensor parallel; replicas of dense models would change nothing
    batches: tuple[int, ...]


SERVICES = {
    "deepseek-v3": Service(
        jc.Traffic(prompt=4096, output=1024, prefix_hit=0.99, tpot_target=0.02),
        EIGHT | {"expert_bits": NVFP4},
        (8, 16, 64),
        (1, 2, 4, 8),
        (8, 16, 32, 64, 128, 256, 512),
    ),
    "llama-3.1-70b": Service(
        jc.Traffic(prompt=2048, output=512, tpot_target=0.05),
        EIGHT,
        (1, 2, 4, 8),
        (1, 2, 4, 8),
        (4, 8, 16, 32, 64, 128, 256, 512),
    ),
}


load_model = functools.cache(jc.load_model)


def case_of(system: jc.System, model: str, chips: int, plan: jc.Plan, batch: float) -> Case:
    traffic = jc.replace(SERVICES[model].traffic, batch=float(round(batch)))
    return Case(jc.replace(system, chips=float(chips)), load_model(model), traffic, plan)


def candidates(system: jc.System, model: str, small: bool) -> list[Case]:
    """A mixture spreads experts over all chips, attention over groups of tensor-parallel ones; else there is one."""
    service, found = SERVICES[model], []
    mixture = "expert_bits" in service.bits
    for chips, tp, batch in itertools.product(service.chips, service.degrees, service.batches):
        if tp == chips or (mixture and chips % tp == 0):
            spread = {"dp": chips // tp, "ep": chips} if mixture else {}
            found.append(
                case_of(system, model, chips, jc.Plan(tp=tp, **spread, **service.bits), batch * chips)
            )
    return found[::5] if small else found


def cheapest(cases: dict[Key, list[Case]]) -> dict[Key, Case]:
    """Of each list the cheapest case that keeps every margin; lists where none does are left out."""
    report = evaluate([case for each in cases.values() for case in each])
    usd = np.where(np.asarray(report.margins.worst) >= -1e-6, report.usd_per_mtok, np.inf)
    ends = np.cumsum([len(each) for each in cases.values()])[:-1]
    return {
        key: each[int(np.argmin(of))]
        for (key, each), of in zip(cases.items(), np.split(usd, ends), strict=True)
        if np.isfinite(of).any()
    }


def closer(case: Case, model: str) -> list[Case]:
    """The same with batches about its own."""
    batch = float(case.traffic.batch)
    return [case_of(case.system, model, case.system.chips, case.plan, batch * by) for by in CLOSER]
