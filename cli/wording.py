"""Next steps for the command line: commands."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from typing import Any

from ..training.config.arguments import flat_fields
from ..training.next_step import Next
from ..training.untrusted import one_line

OPTIONS = {
    "dataset": "--data",
    "questions": "--question",
    **{name: f"--{name}" for name in ("format", "imatrix", "output", "overwrite", "preview", "quantization")},
    "allow_other_base": "--allow-other-base",
}
"""Options that are not their setting's name with dashes, or that set no setting."""

VALUE = r'"[^"]*"|\{[^{}]*\}|\[[^\[\]]*\]|…|-?\w(?:[\w./:+-]*\w)?'


def words(step: Next) -> str:
    """The step as a command, or as options to add to the last command."""
    # What the user fills in has a placeholder of its own in each command.
    given = {name: _value(value) for name, value in step.arguments.items() if value != "…"}
    match step.action:
        case "ask_again" if not step.arguments:
            return "run it again"
        case "ask_again":
            options = [_option(name, value) for name, value in step.arguments.items()]
            return f"run it again with {' '.join(options)}"
        case "train" if "resume" in given:
            return f"backprop train --resume {given['resume']} --steps {given.get('steps', 'N')}"
        case "train":
            return f"backprop train {_training(step.arguments, given)}"
        case "plan" | "probe":
            probe = " --probe" if step.action == "probe" else ""
            return f"backprop plan {_training(step.arguments, given)}{probe}"
        case "multi_run" if "continue_from" in given:
            return f"backprop multi-run --continue-from {given['continue_from']} --data FILE"
        case "multi_run":
            return f"backprop multi-run --data {given.get('dataset', 'FILE')}" + (
                f" --model {given['model']}" if "model" in given else ""
            )
        case "inspect":
            options = [_option(name, step.arguments[name]) for name in given if name != "dataset"]
            return " ".join([f"backprop inspect {given.get('dataset', 'FILE')}", *options])
        case "get_run":
            return f"backprop show-run {given['run_id']} --follow"
        case "list_runs":
            return "backprop list-runs"
        case "resume" | "cancel":
            allowed = " --allow-other-base" if "allow_other_base" in given else ""
            return f"backprop {step.action} {given['run_id']}{allowed}"
        case "delete":
            return f"backprop prune {given['run_id']}"
        case "free_disk":
            return "backprop prune --all-ended"
        case "export":
            options = [_option("format", given["format"])] if "format" in given else []
            return " ".join([f"backprop export {given.get('source', 'RUN')}", *options])
        case "generate":
            changed = [name for name in given if name not in ("source", "prompts")]
            options = [_option(name, step.arguments[name]) for name in changed]
            return " ".join([f"backprop generate {given.get('source', 'RUN')} TEXT", *options])
        case "evaluate":
            options = [_option(name, step.arguments[name]) for name in given if name != "source"]
            return " ".join([f"backprop evaluate {given.get('source', 'RUN')}", *options])
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


def _training(arguments: dict[str, Any], given: dict[str, str]) -> str:
    """Dataset, model and settings of a training as options."""
    words = [_option("dataset", arguments["dataset"]) if "dataset" in given else "--data FILE"]
    words += [f"--model {given['model']}"] if "model" in given else []
    return " ".join([*words, *(_option(n, arguments[n]) for n in given if n not in ("dataset", "model"))])


def as_options(text: str) -> str:
    """A sentence with `max_seq_length=1024` as `--max-seq-length 1024`, as the command line calls it."""
    return _assignments().sub(lambda found: _option(found[1], _read(found[2])), text)


@cache
def _assignments() -> re.Pattern[str]:
    names = "|".join([*flat_fields(), *OPTIONS])
    return re.compile(rf"(?<![\w.-])({names})=({VALUE})")


def _read(text: str) -> Any:
    """A value as messages write it: JSON, or a plain word."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | str) else text


def _value(value: Any) -> str:
    if value == "…":
        return "…"
    if isinstance(value, dict):
        return shlex.quote(one_line(json.dumps(value, ensure_ascii=False)))
    return " ".join(map(shlex.quote, value)) if isinstance(value, list) else shlex.quote(one_line(str(value)))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _option(name: str, value: Any) -> str:
    if (name, value) == ("private", False):
        return "--public"
    option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if value is False:
        return option.replace("--", "--no-", 1)
    if isinstance(value, list):  # one option for each
        return " ".join(f"{option} {_value(one)}" for one in value)  # pyright: ignore[reportUnknownVariableType]
    return option if value is True else f"{option} {_value(value)}"
