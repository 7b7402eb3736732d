"""What the README says is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backpropagate.cli.main import COMMANDS
from backpropagate.tools import TOOLS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tool_table_is_what_the_server_offers() -> None:
    summaries = {tool.name: (tool.function.__doc__ or "").split("\n\n")[0] for tool in TOOLS}
    rows = [f"| `{name}` | {' '.join(summary.split())} |" for name, summary in summaries.items()]
    table = README.split("<!-- tools:begin")[1].split("<!-- tools:end -->")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == rows


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


def test_the_python_example_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Path, tmp_path: Path
) -> None:
    snippet = README.split("```python\n")[1].split("```")[0]
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    (home / "models").mkdir(parents=True)
    (home / "models" / smollm2.name).symlink_to(smollm2, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.replace("steps=10", "steps=2"), "README.md", "exec"), {})
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()


def test_security_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    everything = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).is_file() if name.endswith(".py") else f"def {name}(" in everything, name
