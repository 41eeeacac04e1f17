"""What pyproject.toml says of the package: its version, and every third-party module that it imports."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import jaxcost
from jaxcost.edge.commands.cli import main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Names of modules whose distribution has another name.
DISTRIBUTIONS = {
    "GenZ": "genz-llm",
    "griffe": "mkdocstrings",  # its extra python
    "orbax": "orbax-checkpoint",
    "ruamel": "ruamel.yaml",
    "yaml": "pyyaml",
}
# Installed with --no-deps, because its pins admit no current Python: README.md, "How fast".
UNDECLARED = {"llm_analysis"}


def third_party_imports(folder: str) -> dict[str, str]:
    """Return the distributions that the files of a folder import, each with one of the files."""
    files = sorted((ROOT / folder).rglob("*.py"))
    local = {"jaxcost", "tests"}
    for source in ("experiments", "figures"):  # pytest's pythonpath
        local |= {path.stem for path in (ROOT / source).rglob("*") if path.suffix == ".py" or path.is_dir()}
    found = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for name in (module.split(".")[0] for module in modules):
                if name not in sys.stdlib_module_names and name not in local | UNDECLARED:
                    found[DISTRIBUTIONS.get(name, name)] = str(path.relative_to(ROOT))
    return found


def distribution_names(requirements: list[str]) -> set[str]:
    """Return the names of the distributions of a list of requirements."""
    return {re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in requirements}


DEPENDENCIES = distribution_names(PROJECT["dependencies"])


def test_dependencies_are_the_imports_of_the_package():
    imported = third_party_imports("jaxcost")
    undeclared = {name: path for name, path in imported.items() if name not in DEPENDENCIES}
    assert not undeclared
    assert not DEPENDENCIES - imported.keys(), "declared, and imported nowhere in jaxcost/"


@pytest.mark.parametrize("folder", ["tests", "experiments", "figures", "docs"])
def test_imports_of_a_checkout_are_declared(folder):
    extras = PROJECT["optional-dependencies"]
    declared = DEPENDENCIES | distribution_names(extras["dev"] + extras["docs"] + extras["peers"])
    undeclared = {n: path for n, path in third_party_imports(folder).items() if n not in declared}
    assert not undeclared


def test_version_is_that_of_pyproject(capsys):
    assert jaxcost.__version__ == PROJECT["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxcost {PROJECT['version']}\n"


def test_citation_and_changelog_name_the_version():
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().count("\n## [Unreleased]\n") == 1


def test_api_reference_has_every_public_name_once():
    pages = (ROOT / "docs" / "api").glob("*.md")
    named = [name for page in pages for name in re.findall(r"^::: jaxcost\.(\w+)$", page.read_text(), re.M)]
    assert sorted(named) == sorted(set(jaxcost.__all__) - {"__version__"})


def test_ci_covers_the_versions_that_pyproject_admits():
    workflow = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]
    pythons = {row["python"] for row in matrix}
    assert pythons == {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    oldest, newest = re.search(r"jax>=([\d.]+),<([\d.]+)", " ".join(PROJECT["dependencies"])).groups()
    assert {row["jax"] for row in matrix} == {f"jax=={oldest}.0", f"jax<{newest}"}
    commands = [step["run"] for step in workflow["jobs"]["tests"]["steps"] if "run" in step]
    assert "python -m pytest -n 2" in commands and "python -m pytest -n 2" in (ROOT / "README.md").read_text()
