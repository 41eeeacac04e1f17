"""The house's rules: imports only go down, only the edge reads or prints, files stay small."""

import ast
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxcost"
LAYERS = ("core", "spec", "physics", "evaluate", "explore", "edge")
FORBIDDEN_BELOW_EDGE = {
    "pydantic",
    "ruamel",
    "pint",
    "matplotlib",
    "rich",
    "argparse",
    "pyarrow",
    "pandas",
    "json",
    "os",
}
FILES = sorted(
    p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in {"evaluate", "report", "schedule"}
)


def layer_of(module: str) -> int:
    part = module.removeprefix("jaxcost.").split(".")[0]
    return LAYERS.index("evaluate" if part in ("report", "schedule") else part)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            if node.module == "jaxcost.edge" or node.module == "jaxcost":
                yield from (f"{node.module}.{a.name}" for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    own = layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    for module in imports(path):
        if module.startswith("jaxcost."):
            assert layer_of(module) <= own, f"{path.name} imports {module} from a layer above"


@pytest.mark.parametrize(
    "path", [p for p in FILES if "edge" not in p.parts], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_only_the_edge_reads_writes_or_prints(path):
    for module in imports(path):
        assert module.split(".")[0] not in FORBIDDEN_BELOW_EDGE, f"{path.name} imports {module}"
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"print", "open", "input"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_hold_one_idea(path):
    assert len(path.read_text().splitlines()) <= 450
    assert ast.get_docstring(ast.parse(path.read_text())) or path.name == "__init__.py"


def test_every_package_is_installed():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    folders = {p.parent.relative_to(PACKAGE.parent) for p in PACKAGE.rglob("*.py")}
    found = {".".join(f.parts) for f in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == found | {"jaxcost.configs"}
