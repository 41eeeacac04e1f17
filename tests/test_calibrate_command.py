"""`jaxcost calibrate` and `jaxcost validate` on rows of a library whose kernels are known."""

import csv
import json

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.catalog.circumstances import fit_of_place
from jaxcost.edge.catalog.parts import load_part
from jaxcost.edge.commands.cli import main
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import FAMILIES
from jaxcost.explore.calibrate.matmul_form import MATMUL
from jaxcost.spec.measurement import Measurements

KERNEL = {
    "launch": 4e-6,
    "steps": 0.7,
    "memory": 0.8,
    "matmul": 0.7,
    "serial": 0.2,
    "rows": 32.0,
    "waves": 0.4,
}
WORDS = {"a100_sxm": "a100-80gb-sxm", "h100_sxm": "h100-sxm"}
SLOWER = {**KERNEL, "launch": 6e-6, "memory": 0.6}  # on the chip that is measured by a handful of rows
HEADER = ["source", "gpu", "backend", "backend_version", "dtype", "m", "n", "k", "latency_us"]


def write_rows(path, word, name, kernel, m, n, k, library="mylib"):
    """Add rows of matmuls of a chip, whose times are those of a kernel with 2% of noise."""
    bits = np.full(len(m), 16.0)
    work = {"rows": m, "columns": n, "inner": k, "weight_bits": bits, "activation_bits": bits}
    rows = Measurements(
        family="matmul",
        work=work,
        seconds=m,
        labels={"chip": np.full(len(m), name), "library": np.full(len(m), "mylib")},
        source="",
        file="",
        line=m,
    )
    seconds = predict(
        MATMUL.run, FAMILIES["matmul"].columns(rows, {name: jc.load_system(name)}), MATMUL.kernel(kernel)
    )
    seconds = seconds * np.exp(np.random.default_rng(len(word)).normal(0, 0.02, len(m)))
    new = not path.exists()
    with path.open("a", newline="") as file:
        out = csv.writer(file)
        if new:
            out.writerow(HEADER)
        for row in zip(m, n, k, seconds, strict=True):
            out.writerow(["made", word, library, "1.0", "bfloat16", *map(int, row[:3]), row[3] * 1e6])


def shapes():
    """Return rows, columns and inner sizes of 126 matmuls."""
    pairs = [(n, k) for n in (512.0, 4096.0, 8192.0) for k in (1024.0, 4096.0, 7168.0)]
    n, k = (np.repeat(side, 14) for side in zip(*pairs, strict=True))
    return np.tile(2.0 ** np.arange(0, 14), 9), n, k


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a gemm.csv of two chips."""
    made = tmp_path_factory.mktemp("measured")
    for word, name in WORDS.items():
        write_rows(made / "gemm.csv", word, name, KERNEL, *shapes())
    return made


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """The efficiency files of both chips, and across them."""
    out = tmp_path_factory.mktemp("efficiency")
    chips = [word for name in WORDS.values() for word in ("--chip", name)]
    assert main(["calibrate", "--data", str(folder), *chips, "--out", str(out)]) == 0
    assert main(["calibrate", "--data", str(folder), *chips, "--across", "--out", str(out)]) == 0
    return out


def test_a_file_for_every_library_and_chip(written):
    assert sorted(p.name for p in written.iterdir()) == [
        "a100-80gb-sxm-mylib.yaml",
        "h100-sxm-mylib.yaml",
        "mylib.yaml",
    ]


def test_files_load_and_count(written):
    path = str(written / "h100-sxm-mylib.yaml")
    kernels = jc.load_efficiency(path).kernels
    assert float(kernels.matmul.bits_16.matmul) == pytest.approx(0.7, rel=0.05)
    # What was not measured in 8 bits takes the numbers of 16.
    assert float(kernels.matmul.bits_8.launch) == float(kernels.matmul.bits_16.launch)
    assert float(kernels.elementwise.launch) == pytest.approx(2e-6)
    system = jc.load_system("h100-sxm", efficiency=path)
    ideal = jc.load_system("h100-sxm")
    model, request = jc.load_model("llama-3.2-1b"), (jc.Traffic(prompt=256, output=64, batch=4), jc.Plan())
    assert float(jc.evaluate(system, model, *request).tpot) > float(jc.evaluate(ideal, model, *request).tpot)


def test_entries_say_what_they_rest_on(written):
    part, _ = load_part("efficiency", str(written / "h100-sxm-mylib.yaml"))
    entry = part.kernels.matmul.bits_16.memory
    assert entry.kind == "measured" and "126 rows" in entry.source
    assert (part.library, part.chips) == ("mylib", ["h100-sxm"])
    across, _ = load_part("efficiency", str(written / "mylib.yaml"))
    assert across.chips == ["a100-80gb-sxm", "h100-sxm"]
    (pooled,) = across.fits
    assert (pooled.chips, pooled.generations) == (["a100-80gb-sxm", "h100-sxm"], ["ampere", "hopper"])
    # One chip of each generation: a chip that is left out is another generation.
    assert set(pooled.medians) == {"shapes", "generation"} and pooled.chip is None
    assert pooled.medians["shapes"] < 0.03 and pooled.rows == 252
    by = across.kernels.matmul.bits_16.memory.by
    assert set(by) == {"ampere", "hopper", "a100-80gb-sxm", "h100-sxm"}
    assert by["h100-sxm"][1] <= by["h100-sxm"][0] <= by["h100-sxm"][2]
    # A generation that was not measured is less certain than one that was, and that than a measured chip.
    widths = [high - low for _, low, high in (by["h100-sxm"], by["hopper"])]
    assert (
        widths[0]
        < widths[1]
        < across.kernels.matmul.bits_16.memory.high - across.kernels.matmul.bits_16.memory.low
    )
    assert entry.low <= entry.value <= entry.high and entry.high - entry.low < 0.2
    (fit,) = part.fits
    assert fit.kernels == "matmul" and fit.rows == 126 and fit.held_out == "shape of the weights (n, k)"
    assert fit.median < 0.03 and fit.low < 0 < fit.high


def test_validate_predicts_from_the_chip_s_file(folder, written, capsys):
    assert main(["validate", "--data", str(folder), "--configs", str(written), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["basis"] == ["a100-80gb-sxm-mylib", "h100-sxm-mylib"]
    (op,) = found["op"]
    assert op["rows"] == 252 and op["median"] < 0.03 < op["roofline"] and 0.7 < op["inside"] < 0.9
    assert [one["name"] for one in found["chip"]] == ["a100-80gb-sxm", "h100-sxm"]
    assert len(found["size"]) == 10


def test_validate_predicts_a_chip_never_measured(folder, written, tmp_path, capsys):
    (tmp_path / "mylib.yaml").write_bytes((written / "mylib.yaml").read_bytes())
    picture = tmp_path / "v.svg"
    assert (
        main(
            [
                "validate",
                "--data",
                str(folder),
                "--configs",
                str(tmp_path),
                "--by",
                "op",
                "--plot",
                str(picture),
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "mylib" in shown and "matmul" in shown
    assert picture.stat().st_size > 5000


def test_validate_says_what_its_numbers_rest_on(folder, written, tmp_path, capsys):
    """Rows of a measured chip, of its generation, of neither, and of a precision that no file has."""
    data, files = tmp_path / "rows", tmp_path / "files"
    data.mkdir()
    files.mkdir()
    (files / "mylib.yaml").write_bytes((written / "mylib.yaml").read_bytes())
    (data / "gemm.csv").write_bytes((folder / "gemm.csv").read_bytes())
    m, n, k = (side[:14] for side in shapes())
    for word, name in (("h200_sxm", "h200-sxm"), ("b200", "b200")):
        write_rows(data / "gemm.csv", word, name, KERNEL, m, n, k)
    write_rows(data / "gemm.csv", "mystery", "h100-sxm", KERNEL, m, n, k)
    write_rows(data / "gemm.csv", "h100_sxm", "h100-sxm", KERNEL, m, n, k, library="otherlib")
    rows = list(csv.reader((data / "gemm.csv").read_text().splitlines()))
    block = [[*row[:4], "fp8_block", *row[5:]] for row in rows[1:8]]
    with (data / "gemm.csv").open("a", newline="") as file:
        csv.writer(file).writerows(block)
    command = ["validate", "--data", str(data), "--configs", str(files), "--by", "measured", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    of = {one["name"]: one for one in found["measured"]}
    assert {name: one["rows"] for name, one in of.items()} == {
        "this chip": 252,
        "its generation": 14,
        "other generations": 14,
        "a near kernel": 7,
    }
    assert of["this chip"]["median"] < 0.05 and of["its generation"]["median"] < 0.05
    counts = found["rows"]
    assert counts["all"] == counts["predicted"] + sum(counts["not_predicted"].values()) == 252 + 14 * 4 + 7
    assert sorted(counts["not_predicted"].values()) == [14, 14]
    said = " ".join(counts["not_predicted"])
    assert "matmul: chips that are not in the catalogue (mystery)" in said
    assert "otherlib 1.0 bfloat16: no file has this kernel of this library" in said


def test_served_times_are_scored_or_counted(tmp_path, capsys):
    """Rows of e2e.csv: closed loops are predicted by the files of the catalogue, others have a reason."""
    head = "gpu,num_gpus,tp,input_len,output_len,concurrency,metric,value,unit,model,engine,mode,source\n"
    row = "h100_sxm,1,1,1024,128,{users},{metric},{value},{unit},{model},vllm,{mode},made\n"
    llama = "meta-llama/Llama-3.1-8B-Instruct"
    loop = {"users": 16, "unit": "ms", "model": llama, "mode": "agg"}
    rows = [
        row.format(metric="tpot_mean", value=10, **loop),
        row.format(metric="ttft_mean", value=90, **loop),
        row.format(metric="tpot_mean", value=10, **(loop | {"model": "nobody/knows"})),
        row.format(metric="tpot_mean", value=10, **(loop | {"mode": "static_batch"})),
    ]
    (tmp_path / "e2e.csv").write_text(head + "".join(rows))
    assert main(["validate", "--data", str(tmp_path), "--by", "op", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["rows"]) for one in found["op"]] == [("served TPOT", 1), ("served TTFT", 1)]
    assert found["op"][0]["median"] < 0.7 and found["op"][0]["roofline"] is None
    assert found["rows"]["not_predicted"] == {
        "serving: a static batch, not a closed loop": 1,
        "serving: the model nobody/knows is not in the catalogue": 1,
    }
    assert main(["validate", "--data", str(tmp_path), "--by", "op", "--plot", str(tmp_path / "v.svg")]) == 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--chip", "h100-sxm", "--family", "gemm"], "--family: got 'gemm'; expected one of matmul"),
        (["--chip", "h100-sxm", "--across"], "--across: got 'h100-sxm'; expected two or more --chip"),
        (["--chip", "h100-sxm", "--prior", "typicl"], "--prior: got 'typicl'; expected a name listed by"),
        (
            ["--chip", "h100-sxm", "--chip", "a100-80gb-sxm", "--across", "--prior", "typical"],
            "either --across or",
        ),
        (["--chip", "b200"], "expected one of a100-80gb-sxm, h100-sxm"),
        (["--chip", "h100-sxn"], "did you mean 'h100-sxm'?"),
        (["--chip", "h100-sxm", "--library", "mylab"], "did you mean 'mylib'?"),
        (["--chip", "h100-sxm", "--family", "attention_decode"], "expected measurements of a kernel family"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, said, capsys):
    assert main(["calibrate", "--data", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_validate_without_files_says_so(folder, tmp_path, capsys):
    assert main(["validate", "--data", str(folder), "--configs", str(tmp_path)]) == 2
    assert "expected measurements for which a file of the folder has kernels" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "name", "share"), [("h200_sxm", "h200-sxm", 0.5), ("l40s", "l40s", 0.25)])
def test_few_rows_update_a_prior(written, tmp_path, word, name, share):
    """A prior knows less of another generation than of another chip: few rows tell more."""
    data = tmp_path / "few"
    data.mkdir()
    m, n, k = shapes()
    some = np.asarray([0, 20, 40, 60, 80, 100])
    write_rows(data / "gemm.csv", word, name, SLOWER, m[some], n[some], k[some])
    prior, out = str(written / "mylib.yaml"), tmp_path / "out"
    command = ["calibrate", "--data", str(data), "--chip", name, "--prior", prior, "--out", str(out)]
    assert main(command) == 0
    path = str(out / f"{name}-mylib.yaml")

    def error(file):
        kernel = jc.load_efficiency(file, name).kernels.matmul.bits_16
        numbers = {f.name: float(getattr(kernel, f.name)) for f in leaf_fields(type(kernel))}
        work = {"rows": m, "columns": n, "inner": k, "weight_bits": m * 0 + 16, "activation_bits": m * 0 + 16}
        rows = Measurements(
            family="matmul",
            work=work,
            seconds=m,
            labels={"chip": np.full(len(m), name), "library": np.full(len(m), "mylib")},
            source="",
            file="",
            line=m,
        )
        columns = FAMILIES["matmul"].columns(rows, {name: jc.load_system(name)})
        return np.median(
            np.abs(
                np.log(
                    predict(MATMUL.run, columns, numbers)
                    / predict(MATMUL.run, columns, MATMUL.kernel(SLOWER))
                )
            )
        )

    # Six rows tell what the prior cannot know, for 126 rows.
    assert error(path) < share * error(prior)
    # Other chips have the numbers of the prior.
    assert jc.rows(jc.load_efficiency(path, "h100-sxm")) == jc.rows(jc.load_efficiency(prior, "h100-sxm"))
    part = load_part("efficiency", path)[0]
    assert part.chips == ["a100-80gb-sxm", "h100-sxm", name]
    fit, circumstance = fit_of_place(part, ("matmul", "bits_16"), path, name)
    assert (fit.rows, fit.chips, circumstance) == (6, [name], "shapes")
    assert fit_of_place(part, ("matmul", "bits_16"), path, "h100-sxm")[0].rows == 252
