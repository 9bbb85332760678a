"""The house keeps its order: few files on top, imports that point downwards, no circles, files that stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "mmrobust").rglob("*.py")
}

# The lowest first: a module imports from its own layer and those above it in this list.
LAYERS = (
    ("errors", "files", "keyed", "ranks", "batch", "combinations", "missing", "losses", "schedules"),
    ("data",),
    ("config",),
    ("models",),
    ("tasks",),
    ("evaluation",),
    ("methods",),
    ("loggers",),
    ("reporting",),
    ("training",),
    ("sweeps",),
    ("predict",),
    ("testing", "prepare", "run", "evaluate", "report", "dashboard", "export"),
)

# Imports that still point upwards: this list only shrinks.
UPWARDS: set[tuple[str, str]] = set()

COMMANDS = ("run", "evaluate", "report", "dashboard", "export", "predict.__main__", "prepare.__main__")

# The modules that conf/data names.
DATASETS = {
    target.removeprefix("mmrobust.").rpartition(".")[0]
    for path in (ROOT / "conf/data").glob("*.yaml")
    for target in re.findall(r"^_target_: (mmrobust\.data\.\S+)", path.read_text(), re.MULTILINE)
}

# Files that are still larger than their budget, with what they may have: this list only shrinks.
LARGER: dict[str, int] = {}


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Modules of ours that statements import when their module is; not those for types alone."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mmrobust":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.Try | ast.ClassDef):
            yield from imported(node.body)


GRAPH = {name: set(imported(ast.parse(path.read_text()).body)) for name, path in FILES.items()}


def layer(module: str) -> int:
    first = module.split(".")[1]
    return next(i for i, names in enumerate(LAYERS) if first in names)


def lines(module: str) -> int:
    return len(FILES[f"mmrobust.{module}"].read_text().splitlines())


def budget(module: str) -> int | None:
    """The lines that a file may have; None if nobody said."""
    folder, _, name = module.rpartition(".")
    if module in COMMANDS:
        return 120
    if folder == "methods":
        return 250 if name == "base" else 150
    if module in DATASETS:
        return 150
    return None


def test_few_files_on_top() -> None:
    on_top = sorted(path.name for path in (ROOT / "mmrobust").glob("*.py") if path.name != "__init__.py")
    assert len(on_top) <= 15, on_top


def test_every_module_has_a_layer() -> None:
    assert [name for name in GRAPH if "." in name and not any(name.split(".")[1] in x for x in LAYERS)] == []


def test_imports_point_downwards() -> None:
    upwards = {
        (module.removeprefix("mmrobust."), other.removeprefix("mmrobust."))
        for module, others in GRAPH.items()
        for other in others
        if "." in module and "." in other and layer(other) > layer(module)
    }
    assert upwards == UPWARDS


def test_no_import_leads_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(GRAPH[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_files_stay_small() -> None:
    sizes = {name.removeprefix("mmrobust."): path for name, path in FILES.items()}
    larger = {name for name in sizes if (limit := budget(name)) is not None and lines(name) > limit}
    assert larger == set(LARGER), (
        "a file has grown beyond its budget, or is within it again: take it off the list"
    )
    assert [name for name, most in LARGER.items() if lines(name) > most] == []


def test_packages_say_what_they_are_and_no_more() -> None:
    """Importing one module of a package must not import others, nor torch."""
    packages = [path for path in FILES.values() if path.name == "__init__.py"]
    for path in packages:
        statements = ast.parse(path.read_text()).body[1:]
        allowed = path.parent.name in ("loggers", "tasks", "testing")
        if path.parent.name == "mmrobust":
            assert not set(imported(statements)), path
            continue
        assert allowed or not statements, path


# Tests that still import from other tests: this list only shrinks.
FROM_TESTS = {
    ("tests/data/families/test_scenes.py", "tests.data.test_synthetic"),
    ("tests/data/test_targets.py", "tests.data.test_manifest"),
    ("tests/reporting/test_panel.py", "tests.data.test_synthetic"),
}


def test_what_tests_share_is_no_test() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), str(node.module))
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and ".test_" in str(node.module)
    }
    assert found <= FROM_TESTS
