"""Published claims about LLM inference, compared with jaxcost's results for the stated inputs.

Every number in the column "ours" is an evaluation of a system that is built from inputs stated in the source, or
marked in the row as missing there. No input is tuned to the claim. The verdicts are "ok" (reproduced), "loose"
(reproduced under the condition in the last column) and "no" (not reproduced, for the reason in the last column). A
dash marks a row that is not a claim. The claims are in `claims/`, one file per source.
"""

from claims import TABLE, Claim, claims
from claims.common import BY_HAND, WRITE_UPS
from study import Study, Table, run

UNITS = {
    "source": "",
    "claim": "",
    "bound": "",
    "published": "as the row says",
    "ours": "as the row says",
    "unit": "",
    "ratio": "1",
    "verdict": "",
    "baseline_share": "1",
    "hangs_on": "",
}
VERDICTS = {"ok": "are reproduced", "loose": "are reproduced under a condition", "no": "are not reproduced"}
SMALL = 4  # of TABLE
# What the findings say of each source: rows whose names have a part.
HEADLINES = (
    ("RPU's times per token, bandwidth alone", "RPU", "units, a token"),
    ("RPU's energy against H100s", "RPU", "four H100 over 308"),
    ("LIMINAL's six speeds", "LIMINAL", "chips with HBM3,"),
    ("TerEffic's speeds, our roofs", "TerEffic", "on 460 GB/s"),
    ("A token's reads in LLM in a flash", "LLM in a flash", "input and output a token"),
    ("AttAcc's speed-up, generation alone", "AttAcc", "160 GB, generation alone"),
    ("PIM-AI's cost of a query at the best batch", "PIM-AI", "at most (batch"),
    ("PIM-AI's energy of a query in a phone", "PIM-AI", "query, least"),
    ("Sandisk's loss with flash", "Sandisk", "one wait"),
    ("Measured energy of a token of Llama 3.1 on H100s", "ML.ENERGY", "energy of a token"),
)


def row(claim: Claim) -> dict:
    return {
        "source": claim.source,
        "claim": claim.name,
        "bound": claim.bound,
        "published": claim.claimed,
        "ours": claim.ours,
        "unit": claim.unit,
        "ratio": claim.ratio,
        "verdict": claim.verdict,
        "baseline_share": claim.baseline_share,
        "hangs_on": claim.hangs_on,
    }


def study(small: bool) -> Study:
    of = TABLE[:SMALL] if small else TABLE
    found = [row(claim) for one in of for claim in claims(one)]
    sources = tuple(sorted(dict.fromkeys(r["source"] for r in found), key=lambda s: s == BY_HAND))
    found.sort(key=lambda r: sources.index(r["source"]))
    counts = [
        {
            "source": s,
            **{v: sum((r["source"], r["verdict"]) == (s, v) for r in found) for v in (*VERDICTS, "-")},
        }
        for s in sources
    ]
    return Study(
        title="Published claims about LLM inference, compared with jaxcost",
        findings=findings(found),
        assumptions=(
            "Ideal peaks unless a row says otherwise: a baseline that reaches less makes every speed-up larger.",
            "Energy of tokens and prompts: efficiency fitted to engines on an H100, no constant fitted to these rows.",
            "Of LIMINAL bits, bandwidth and the time of a collective are a fit to its six numbers.",
            "PIM-AI: prices, power and bandwidth of a module and its traffic are ours, for none was found.",
            "No inputs found, so not evaluated: RPU's 18.6 times the throughput, "
            "TerEffic's model on chip, speeds of other machines in RPU's comparison.",
        ),
        sources=sources,
        tables={
            "claims": Table("one claim", UNITS, found),
            "verdicts": Table(
                "claims of a source by verdict",
                {"source": "", **dict.fromkeys((*VERDICTS, "-"), "1")},
                counts,
            ),
        },
    )


def findings(found: list[dict]) -> tuple[str, ...]:
    """Count the verdicts, and list the conditions of speed-ups, the headlines and the largest deviation."""
    published = [r for r in found if r["verdict"] in VERDICTS and r["source"] != BY_HAND]
    counts = ", ".join(f"{sum(r['verdict'] == v for r in published)} {text}" for v, text in VERDICTS.items())
    checks = [r for r in found if r["source"] == BY_HAND and r["verdict"] in VERDICTS]
    shares = sorted((r for r in found if r["baseline_share"]), key=lambda r: r["baseline_share"])
    told = dict.fromkeys(f"{short(r)} {r['published']:g} times at {r['baseline_share']:.0%}" for r in shares)
    far = min(
        (r for r in published if r["verdict"] == "no" and r["source"] != WRITE_UPS),
        key=lambda r: min(r["ratio"], 1 / r["ratio"]),
    )
    said = [
        f"Of {len(published)} published claims {counts}; of {len(checks)} numbers computed by hand from published ones "
        f"the model reproduces {sum(r['verdict'] == 'ok' for r in checks)} without a condition.",
        f"{len(told)} speed-ups over a GPU hold only if it reaches {shares[0]['baseline_share']:.0%} to "
        f"{shares[-1]['baseline_share']:.0%} of its roofline: {'; '.join(told)}.",
        f"The largest deviation from a paper is {short(far)}, {far['claim']}: {far['published']:g} {far['unit']} against "
        f"{far['ours']:.3g}.",
    ]
    for what, source, part in HEADLINES:
        rows = [r for r in published if r["source"].startswith(source) and part in r["claim"]]
        if rows:
            ratios = [r["ratio"] for r in rows]
            span = f"{ratios[0]:.2f}" if len(rows) == 1 else f"{min(ratios):.2f} to {max(ratios):.2f}"
            said.append(f"{what}: {span} of the published value ({rows[-1]['hangs_on']}).")
    return tuple(said)


def short(found: dict) -> str:
    """The source without its number."""
    return found["source"].split(",")[0]


if __name__ == "__main__":
    run(study)
