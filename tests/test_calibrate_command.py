"""`jaxcost calibrate` and `jaxcost validate` on rows of a library whose kernels are known."""

import csv
import json

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.commands.cli import main
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import FAMILIES
from jaxcost.explore.calibrate.kernel_forms import MATMUL
from jaxcost.spec.measurement import Measurements

KERNEL = {
    "launch": 4e-6,
    "depth": 4e-10,
    "memory": 0.8,
    "matmul": 0.7,
    "serial": 0.2,
    "rows": 64.0,
    "waves": 0.4,
}
WORDS = {"a100_sxm": "a100-80gb-sxm", "h100_sxm": "h100-sxm"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a gemm.csv of two chips."""
    made = tmp_path_factory.mktemp("measured")
    with (made / "gemm.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["source", "gpu", "backend", "backend_version", "dtype", "m", "n", "k", "latency_us"])
        rng = np.random.default_rng(0)
        for word, name in WORDS.items():
            m = np.tile(2.0 ** np.arange(0, 14), 9)
            n, k = (
                np.repeat(s, 14)
                for s in zip(
                    *[(n, k) for n in (512.0, 4096.0, 8192.0) for k in (1024.0, 4096.0, 7168.0)], strict=True
                )
            )
            bits = np.full(len(m), 16.0)
            work = {
                "rows": m,
                "columns": np.asarray(n),
                "inner": np.asarray(k),
                "weight_bits": bits,
                "activation_bits": bits,
            }
            rows = Measurements(
                family="matmul", work=work, seconds=m, labels={"chip": np.full(len(m), name)}, source="", file="", line=m
            )  # fmt: skip
            seconds = predict(
                MATMUL.run, FAMILIES["matmul"].columns(rows, {name: jc.load_system(name)}), KERNEL
            )
            seconds = seconds * np.exp(rng.normal(0, 0.02, len(m)))
            for row in zip(m, n, k, seconds, strict=True):
                out.writerow(["made", word, "mylib", "1.0", "bfloat16", *map(int, row[:3]), row[3] * 1e6])
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
        "gpu-mylib.yaml",
        "h100-sxm-mylib.yaml",
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
    from jaxcost.edge.catalog.parts import load_part

    part, _ = load_part("efficiency", str(written / "h100-sxm-mylib.yaml"))
    entry = part.kernels.matmul.bits_16.memory
    assert entry.kind == "measured" and "126 rows" in entry.source
    assert (part.library, part.chips) == ("mylib", ["h100-sxm"])
    across, _ = load_part("efficiency", str(written / "gpu-mylib.yaml"))
    assert across.chips == ["a100-80gb-sxm", "h100-sxm"]
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
    (tmp_path / "gpu-mylib.yaml").write_bytes((written / "gpu-mylib.yaml").read_bytes())
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
    assert "gpu-mylib" in shown and "matmul" in shown
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--chip", "h100-sxm", "--family", "gemm"], "--family: got 'gemm'; expected one of matmul"),
        (["--chip", "h100-sxm", "--across"], "--across: got 'h100-sxm'; expected two or more --chip"),
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
