"""Every benchmark still fits the code, and benchmarks/README.md names what is there. None is run."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.py"))
COMMANDS = re.findall(r"python benchmarks/(\w+\.py)([^`\n]*)", README)


def trees(file: Path) -> Iterator[ast.Module]:
    """The file, and each program in it that is a string for a process of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield tree
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "\nfrom backpropagate." in node.value
        ):
            yield ast.parse(node.value)


def imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Module, name, and the name that it gets here, of each import from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "backpropagate":
            yield from ((str(node.module), name.name, name.asname or name.name) for name in node.names)


def found(module: str, name: str) -> object:
    parent = importlib.import_module(module)
    return getattr(parent, name) if hasattr(parent, name) else importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_name_that_a_benchmark_imports_or_uses_of_a_module_exists(file: Path) -> None:
    for tree in trees(file):
        here = {name_here: found(module, name) for module, name, name_here in imports(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = here.get(node.value.id)
                if isinstance(owner, ModuleType):
                    assert hasattr(owner, node.attr), f"{file.name}: {ast.unparse(node)}"


def test_the_benchmarks_readme_names_every_program_and_only_programs_that_exist() -> None:
    shared = {
        name
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names])
    }
    programs = {file.name for file in FILES if file.stem not in shared}
    assert {name for name, _ in COMMANDS} == programs


def test_every_option_that_the_benchmarks_readme_shows_is_in_its_program() -> None:
    for name, arguments in COMMANDS:
        source = (FOLDER / name).read_text(encoding="utf-8")
        for option in re.findall(r"--[\w-]+", arguments):
            assert f'add_argument("{option}"' in source, f"{name} {option}"
    assert any("--" in arguments for _, arguments in COMMANDS)
