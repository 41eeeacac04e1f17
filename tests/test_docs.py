"""Pages that are written from the code say what the code says."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest

from jaxcost.edge.commands.cli import main
from tests.batched import run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_pages_are_those_of_the_code(page):
    assert page.read_text() == reference.PAGES[page](), "run python docs/reference.py"


def test_first_example_of_the_readme_prints_what_it_says(capsys, monkeypatch):
    """Its gradient is interpreted, as others are that are asked for once."""
    grad = jax.grad
    monkeypatch.setattr(jax, "grad", lambda f: lambda x: run(grad(f), x))
    example, printed = re.search(
        r"```python\n(.*?)```\n```\n(.*?)```", reference.README.read_text(), re.S
    ).groups()
    assert len([line for line in example.splitlines() if line]) == 6
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_command_of_the_readme_prints_what_it_says(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = reference.README.read_text()
    command, printed = re.search(
        r"\njaxcost (evaluate [^\n]*)\n```\n```\n(.*?)\n\.\.\.\n```", text, re.S
    ).groups()
    assert main(command.split()) == 0
    assert capsys.readouterr().out.replace(" \n", "\n").startswith(printed)


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(page):
    """Name the headings of a page as GitHub does."""
    heads = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^):]+)\)", without_code(page.read_text())):
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    """Paths of scripts and of the package, from the root or from a folder of the package."""
    roots = (ROOT, ROOT / "jaxcost", ROOT / "jaxcost" / "physics")
    for name in re.findall(r"[\w./-]+/[\w-]+\.py\b", page.read_text()):
        assert any((root / name).exists() for root in roots) or "NN_name" in name, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_well_formed(page):
    """Code blocks are closed, rows of a table have as many cells as its head, and prose fits in 120 columns."""
    text = page.read_text()
    assert len(re.findall(r"^```", text, re.M)) % 2 == 0
    wide = page.name in ("knobs.md", "equations.md")
    text = re.sub(r"<!-- rates -->.*?<!-- end -->", "", without_code(text), flags=re.S)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert (
            len({len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()})
            == 1
        ), table
    assert wide or [line for line in text.splitlines() if len(line) > 120 and line[0] != "|"] == []


def test_the_layout_lists_every_folder():
    text = re.search(r"## Layout of the package.*?```\n(.*?)```", (DOCS / "model.md").read_text(), re.S)[1]
    package = text.partition("experiments/")[0]
    listed = set(re.findall(r"(\w+)/ ", package)) - {"jaxcost"}
    folders = {path.parent.name for path in (ROOT / "jaxcost").rglob("__init__.py")} - {"jaxcost"}
    assert listed == folders


TUTORIAL = DOCS / "tutorial"


def test_tutorial_shows_its_files_whole():
    text = (DOCS / "tutorial.md").read_text()
    for path in TUTORIAL.iterdir():
        if path.name != "config.json":
            assert path.read_text().strip() in text, path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shape.py", "check.py"])
def test_tutorial_prints_what_it_says(name, monkeypatch, capsys):
    monkeypatch.chdir(TUTORIAL)
    exec(compile((TUTORIAL / name).read_text(), name, "exec"), {})
    assert capsys.readouterr().out.strip() in (DOCS / "tutorial.md").read_text()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_batches_print_what_the_page_says(capsys):
    text = (DOCS / "batches.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n```\n(.*?)```)?", text, re.S)
    assert len(blocks) == text.count("```python") > 0
    names = {}
    for code, printed in blocks:
        exec(compile(code, "batches.md", "exec"), names)
        assert capsys.readouterr().out == printed
