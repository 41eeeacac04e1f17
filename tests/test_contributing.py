"""The recipes of CONTRIBUTING.md, carried out on a copy of the repository: files, changes, and what examples print.

A block with a title is a file to write, or a change (diff) of one; a Python block is an example, and the block after it is
what the example prints.
"""

import builtins
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```$', re.M | re.S)
COPIED = ("jaxcost", "configs", "experiments/study.py", "figures/style.py")
# Runs every example in one process, for importing JAX takes longer than all of them.
DRIVER = """
import contextlib, io, json, runpy, shlex, sys, traceback

printed = []
for language, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            if language == "python":
                exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "example"})
            for line in code.splitlines() if language == "sh" else ():
                _, script, *sys.argv[1:] = shlex.split(line)
                sys.argv[0] = script
                runpy.run_path(script, run_name="__main__")
        except BaseException:
            print(traceback.format_exc())
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def recipes() -> dict[str, list[tuple[str, str, str]]]:
    """Return the blocks of each recipe: (language, title, text)."""
    parts = re.split(r"^### (.+)$", TEXT.partition("\n## Recipes\n")[2], flags=re.M)
    return {
        name: [(lang, title, textwrap.dedent(text)) for _, lang, title, text in BLOCK.findall(body)]
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


RECIPES = recipes()


def changed(source: str, diff: str, where: str) -> str:
    """Apply a diff whose hunks are found by their lines, each of which must occur exactly once."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert source.count(before) == 1, (
            f"{where}: CONTRIBUTING.md changes lines that are not there:\n{before}"
        )
        source = source.replace(before, after)
    return source


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Carry out all recipes; return what each example printed and the folder."""
    root = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        (root / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, root / name)
    examples = {}
    for recipe, blocks in RECIPES.items():
        for i, (language, title, text) in enumerate(blocks):
            path = root / title
            if language == "diff":
                path.write_text(changed(path.read_text(), text, title))
            elif title:
                assert not path.exists(), f"{title} is there already"
                path.write_text(text)
            elif language in ("python", "sh"):
                examples[recipe, i] = language, text
    paths = os.pathsep.join(map(str, (root, root / "experiments", root / "figures")))
    process = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(list(examples.values())),
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return root, dict(zip(examples, json.loads(process.stdout), strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_works_as_written(recipe, printed):
    root, outputs = printed
    blocks = RECIPES[recipe]
    mine = {i: text for (name, i), text in outputs.items() if name == recipe}
    assert mine, "a recipe has an example"
    for i, text in mine.items():
        assert "Traceback" not in text, text
        if blocks[i][0] == "python":
            assert blocks[i + 1][0] == "", "what the example prints follows it"
            assert text == blocks[i + 1][2]
    if "study" in recipe:
        assert (root / "out" / "30_bandwidth_price.svg").stat().st_size > 10_000


def test_recipes_are_those_of_the_guide():
    words = ("chip", "serving engine", "model family", "memory", "collective", "operator", "flag", "study")
    assert all(any(word in recipe for recipe in RECIPES) for word in words)


def test_files_and_functions_that_the_guide_names_exist():
    prose = BLOCK.sub("", TEXT)
    for name in re.findall(r"`((?:jaxcost|configs|tests|docs|experiments|figures|\.ci)/[\w./-]*)`", prose):
        assert (ROOT / name).exists(), name
    sources = "".join(path.read_text() for path in (ROOT / "jaxcost").rglob("*.py"))
    sources += "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for name in re.findall(r"`([A-Z]\w+|[a-z]+_[a-z_]+)`", prose):
        assert hasattr(builtins, name) or re.search(rf"\b{name}\b", sources), name
