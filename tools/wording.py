"""Next steps for assistants: tool calls."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from ..training.config.arguments import flat_fields
from ..training.next_step import Next
from ..training.untrusted import escaped

TOOLS_OF_ACTIONS = {
    "train": "train",
    "multi_run": "multi_run",
    "plan": "plan_train",
    "probe": "plan_train",
    "inspect": "inspect_dataset",
    "get_run": "get_run",
    "list_runs": "list_runs",
    "resume": "resume_run",
    "cancel": "cancel_run",
    "export": "export_gguf",
    "generate": "generate",
    "evaluate": "evaluate",
    "register": "register_ollama",
    "push": "push_to_hub",
    "delete": "delete_run",
}


WITHIN_SETTINGS = flat_fields().keys() - {
    *("dataset", "model", "steps", "epochs", "samples", "on_bad_rows", "dedupe", "batch_size"),
    *("learning_rate", "max_seq_length", "lora_r", "lora_alpha", "load_in_4bit", "seed", "questions"),
}
"""Settings without a parameter of their own in the tools that train."""


COMMANDS_OF_ACTIONS = {
    "train": "train",
    "multi_run": "multi-run",
    "resume": "resume",
    "cancel": "cancel",
    "export": "export",
    "generate": "generate",
    "evaluate": "evaluate",
    "register": "export --ollama",
    "push": "push",
    "delete": "prune",
}
"""For the user of a server that does not offer the tool."""

OFFERED: ContextVar[frozenset[str] | None] = ContextVar("OFFERED", default=None)
"""The tools of the server that answers; None: all of them."""


def offers(tool: str) -> bool:
    """Whether the server that answers has this tool."""
    offered = OFFERED.get()
    return offered is None or tool in offered


def words(step: Next) -> str:
    """The step as a tool call, or as an action of the user where no tool exists."""
    given = step.arguments
    match step.action:
        case "ask_again" if given.get("format") == "merged":
            return "the user can export the merged model with `backprop export SOURCE --format merged`."
        case "ask_again" if not given:
            return "call again."
        case "ask_again":
            return f"call again with {_arguments(_as_tools_take_them(given))}."
        case "export" if given.get("format") == "merged":
            command = f"backprop export {given['source']} --format merged"
            return f"the user can export the merged model with `{command}`."
        case "chat_in_ollama":
            return f"`ollama run {given['name']}` starts a chat with it."
        case "load_model":
            return f"AutoModelForCausalLM.from_pretrained({_value(given['path'])}) loads it."
        case "free_disk":
            return "the user can remove old runs with `backprop prune`."
        case "show_settings":
            return "the user can list all settings with `backprop info`."
        case "add_root":
            return "the user can permit the folder: start the server with --root FOLDER."
        case "probe":
            return f"plan_train({_arguments({**_as_tools_take_them(given), 'probe': True})})."
        case action if not offers(TOOLS_OF_ACTIONS[action]):
            subject = given.get("source") or given.get("run_id") or ""
            command = f"backprop {COMMANDS_OF_ACTIONS[action]} {subject}".strip()
            return f"this server only reads; the user can run `{escaped(command)}`."
        case "train" | "plan":
            return f"{TOOLS_OF_ACTIONS[step.action]}({_arguments(_as_tools_take_them(given))})."
        case action:
            return f"{TOOLS_OF_ACTIONS[action]}({_arguments(given)})."


def _as_tools_take_them(given: dict[str, Any]) -> dict[str, Any]:
    """Settings without a parameter of their own go into `settings`."""
    inside = {name: value for name, value in given.items() if name in WITHIN_SETTINGS}
    direct = {name: value for name, value in given.items() if name not in WITHIN_SETTINGS}
    return {**direct, "settings": inside} if inside else direct


def _arguments(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in given.items())


def _value(value: Any) -> str:
    return "…" if value == "…" else escaped(json.dumps(value, ensure_ascii=False))
