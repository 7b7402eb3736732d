"""Next steps for a person at the page: what to press."""

from __future__ import annotations

import json

from ..training.next_step import Next

PAGES = {
    "train": "Train",
    "multi_run": "Multi-run",
    "inspect": "Dataset",
    "export": "Export",
    "generate": "Ask",
    "list_runs": "Runs",
    "register": "Export",
}


def words(step: Next) -> str:
    """The step as what a person does on these pages, or at a terminal where no page does it."""
    given = step.arguments
    match step.action:
        case "ask_again" if not given:
            return "try again."
        case "ask_again":
            return f"set {', '.join(f'{name}={_value(value)}' for name, value in given.items())}."
        case "resume" | "cancel" | "delete":
            return f"press {step.action.capitalize()} on the run's page."
        case "get_run":
            return "look at the run's page."
        case "evaluate":
            return f"`backprop evaluate {given.get('source', 'RUN')}` compares it with its base."
        case "push":
            return f"`backprop push {given.get('source', 'RUN')} --repo OWNER/NAME` publishes it."
        case "chat_in_ollama":
            return f"`ollama run {given['name']}` starts a chat with it."
        case "load_model":
            return f"load it from {given['path']}."
        case "show_settings":
            return "`backprop info` lists all settings."
        case "free_disk":
            return "remove old runs."
        case "add_root":
            return "start the page with --root FOLDER, or upload the file."
        case action:
            return f"go on at {PAGES[action]}."


def _value(value: object) -> str:
    return "…" if value == "…" else json.dumps(value, ensure_ascii=False)
