"""Next steps for the command line: commands."""

from __future__ import annotations

import shlex
from typing import Any

from ..training.next_step import Next


def words(step: Next) -> str:
    """The step as a command, or as options to add to the last command."""
    # What the user fills in has a placeholder of its own in each command.
    given = {name: _value(value) for name, value in step.arguments.items() if value != "…"}
    match step.action:
        case "ask_again":
            options = [_option(name, value) for name, value in step.arguments.items()]
            return f"run it again with {' '.join(options)}"
        case "train" if "resume" in given:
            return f"backprop train --resume {given['resume']} --steps {given.get('steps', 'N')}"
        case "train":
            return f"backprop train --data {given.get('dataset', 'FILE')}" + (
                f" --model {given['model']}" if "model" in given else ""
            )
        case "inspect":
            return f"backprop inspect {given.get('dataset', 'FILE')}"
        case "get_run":
            return f"backprop show-run {given['run_id']} --follow"
        case "list_runs":
            return "backprop list-runs"
        case "resume" | "cancel":
            return f"backprop {step.action} {given['run_id']}"
        case "delete":
            return f"backprop prune {given['run_id']}"
        case "free_disk":
            return "backprop prune --all-ended"
        case "export":
            return f"backprop export {given.get('source', 'RUN')}"
        case "register":
            name = given.get("name", "NAME")
            return f"backprop export {given.get('path', 'FILE')} --ollama --ollama-name {name}"
        case "push":
            return f"backprop push {given.get('source', 'RUN')} --repo {given.get('repo', 'OWNER/NAME')}"
        case "chat_in_ollama":
            return f"ollama run {given['name']}"
        case "load_model":
            return f"load it from {given['path']}"
        case "show_settings":
            return "backprop info"
        case "add_root":
            return "use a folder that you own"


def _value(value: Any) -> str:
    if value == "…":
        return "…"
    return " ".join(map(shlex.quote, value)) if isinstance(value, list) else shlex.quote(str(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _option(name: str, value: Any) -> str:
    if (name, value) == ("private", False):
        return "--public"
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"{option} {_value(value)}"
