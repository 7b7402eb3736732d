"""What the README says is true; its generated parts and the packages' maps name every file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from generated_parts import assert_up_to_date

from backpropagate.cli.client_configs import CLIENTS
from backpropagate.cli.main import COMMANDS
from backpropagate.tools import TOOLS
from backpropagate.training.runs.store import RunStore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP_LINE = re.compile(r"^ +(\w+/|\w+\.py) {2,}\S", re.MULTILINE)


def tool_table() -> list[str]:
    summaries = {tool.name: (tool.function.__doc__ or "").split("\n\n")[0] for tool in TOOLS}
    rows = [f"| `{name}` | {' '.join(summary.split())} |" for name, summary in summaries.items()]
    return ["| tool | what it does |", "|---|---|", *rows]


def client_table() -> list[str]:
    rows = [f"| {client.title} | `backprop serve --install {name}` |" for name, client in CLIENTS.items()]
    other = "| any other: prints the entry | `backprop serve --print-config generic` |"
    return ["| client | one line |", "|---|---|", *rows, other]


def folder_tree() -> list[str]:
    """One line per folder and file: its name, and the first sentence of its docstring."""
    tops = ("server", "tools", "cli", "web", "training")
    entries = [entry for top in tops for entry in tree_of(ROOT / top)]
    width = max(len(name) for name, _ in entries) + 2
    return ["```", *(f"{name:{width}}{sentence}" for name, sentence in entries), "```"]


def tree_of(folder: Path) -> Iterator[tuple[str, str]]:
    """The folder, then its files, then its folders without what is in them."""
    yield f"{folder.name}/", first_sentence(folder / "__init__.py")
    for file in sorted(folder.glob("[!_]*.py")):
        yield f"  {file.name}", first_sentence(file)
    for package in sorted(folder.glob("*/__init__.py")):
        yield f"  {package.parent.name}/", first_sentence(package)


def first_sentence(file: Path) -> str:
    line = docstring(file).split("\n")[0].removeprefix(f"{file.stem}: ")
    sentence = re.split(r"\. |[.:;]$", line)[0]
    return sentence[:1].upper() + sentence[1:]


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def test_the_tool_table_and_the_tree_are_what_the_server_offers_and_the_folders_hold() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write both anew, and read the diff."""
    assert_up_to_date(
        ROOT / "README.md", {"tools": tool_table(), "clients": client_table(), "tree": folder_tree()}
    )


def test_a_packages_map_names_all_that_is_in_the_package_and_nothing_else() -> None:
    maps = 0
    for init in (ROOT / "training").rglob("__init__.py"):
        named = MAP_LINE.findall(docstring(init))
        files = {file.name for file in init.parent.glob("[!_]*.py")}
        folders = {f"{package.parent.name}/" for package in init.parent.glob("*/__init__.py")}
        assert not named or sorted(named) == sorted(files | folders), init
        maps += bool(named)
    assert maps


def test_every_command_line_in_the_readme_names_a_command_and_options_that_exist() -> None:
    import click

    from backpropagate.cli.main import backprop

    lines = re.findall(r"^backprop (.+?)(?:\s{2,}#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        name, *words = line.split()
        assert name in COMMANDS, line
        command = backprop.get_command(click.Context(backprop), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.nightly
@pytest.mark.slow
def test_the_python_example_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Path, tiny_model: Path, tmp_path: Path
) -> None:
    own_process, service = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    (home / "models").mkdir(parents=True)
    (home / "models" / smollm2.name).symlink_to(smollm2, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for snippet in (own_process, service.replace("smollm2-135m", str(tiny_model))):
        exec(compile(snippet.replace("steps=10", "steps=2"), "README.md", "exec"), {})
    assert len(RunStore(home).ids()) == 2
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()


def test_security_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    everything = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).is_file() if name.endswith(".py") else f"def {name}(" in everything, name
