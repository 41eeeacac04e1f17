"""Pages that are written from the code say what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_pages_are_those_of_the_code(page):
    assert page.read_text() == reference.PAGES[page](), "run python docs/reference.py"


def test_first_example_of_the_readme_prints_what_it_says(capsys):
    example, printed = re.search(
        r"```python\n(.*?)```\n```\n(.*?)```", reference.README.read_text(), re.S
    ).groups()
    assert len([line for line in example.splitlines() if line]) == 6
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_every_link_between_pages_leads_somewhere():
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


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
def test_batches_print_what_the_page_says(capsys):
    text = (DOCS / "batches.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n```\n(.*?)```)?", text, re.S)
    assert len(blocks) == text.count("```python") > 0
    names = {}
    for code, printed in blocks:
        exec(compile(code, "batches.md", "exec"), names)
        assert capsys.readouterr().out == printed
