"""The house's rules: imports only go down, only the edge reads or prints, files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxcost"
LAYERS = ("core", "spec", "physics", "evaluation", "explore", "edge")
ENGINES = ("space", "sweep", "analysis", "serve", "codesign", "calibrate", "replay", "recommend")
EDGE = ("io", "hf", "catalog", "measured", "traces", "studies", "jobs", "show", "launch", "commands")
FOLDERS = {
    "physics": {"compute", "kernels", "memory", "network", "economics"},
    "explore": set(ENGINES),
    "edge": set(EDGE),
}
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
    p
    for p in PACKAGE.rglob("*.py")
    if p.parent != PACKAGE or p.stem in {"evaluation", "margins", "report", "schedule", "step_cost"}
)


def layer_of(module: str) -> int:
    part = module.removeprefix("jaxcost.").split(".")[0]
    return LAYERS.index("evaluation" if part in ("margins", "report", "schedule", "step_cost") else part)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(p): p for p in PACKAGE.rglob("*.py")}


def imports(path: Path, *, at_load: bool = False):
    """Modules that a file imports; with `at_load` only those that load with it."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_load else ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (m for a in node.names if (m := f"{node.module}.{a.name}") in MODULES)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def engine_of(module: str) -> str | None:
    parts = module.split(".")
    return (
        parts[2] if parts[:2] == ["jaxcost", "explore"] and len(parts) > 2 and parts[2] in ENGINES else None
    )


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other, or none."""
    left = dict(graph)
    while leaves := [m for m, needs in left.items() if not needs & left.keys()]:
        for module in leaves:
            del left[module]
    return sorted(left)


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


def test_no_files_import_each_other():
    graph = {m: set(imports(p)) & MODULES.keys() - {m} for m, p in MODULES.items() if p.name != "__init__.py"}
    assert cycle(graph) == []


def test_folders_are_those_of_the_design():
    for layer, folders in FOLDERS.items():
        found = {p.name for p in (PACKAGE / layer).iterdir() if p.is_dir() and (p / "__init__.py").exists()}
        assert found == folders


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_an_engine_is_imported_by_its_public_face_and_from_engines_above(path):
    own = engine_of(module_of(path))
    for module in imports(path):
        engine = engine_of(module)
        if engine in (None, own):
            continue
        assert module == f"jaxcost.explore.{engine}", f"{path.name} imports {module}, not from its engine"
        assert own is None or ENGINES.index(engine) < ENGINES.index(own), f"{own} imports {engine}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "edge").rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_folders_of_the_edge_import_only_those_before_them(path):
    own = EDGE.index(module_of(path).split(".")[2]) if path.parent != PACKAGE / "edge" else len(EDGE)
    for module in imports(path):
        if module.startswith("jaxcost.edge."):
            folder = module.split(".")[2]
            assert EDGE.index(folder) <= own, f"{path.name} imports {module}"
