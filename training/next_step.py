"""The next step as data; each surface describes it with its own names (tool call, command line, Python)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Action = Literal[
    "train",
    "multi_run",
    "plan",
    "probe",
    "inspect",
    "get_run",
    "list_runs",
    "resume",
    "cancel",
    "delete",
    "export",
    "generate",
    "evaluate",
    "register",
    "push",
    "chat_in_ollama",
    "load_model",
    "show_settings",
    "free_disk",
    "add_root",
    "ask_again",
]
"""`ask_again` repeats the same request with its arguments changed as given."""


class Next(BaseModel):
    """A next step: an action and its arguments; created by `then`."""

    model_config = ConfigDict(frozen=True)

    action: Action
    arguments: dict[str, Any] = {}

    def plainly(self) -> str:
        """The step without any surface's names, for logs and for Python programs."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.action.replace('_', ' ')}: {arguments}" if arguments else self.action.replace("_", " ")


def then(action: Action, **arguments: Any) -> Next:
    """The next step `action`; the user fills in an argument that is `...`.

    >>> then("resume", run_id="20261122T090712.345Z-smollm2-a7f3").arguments["run_id"]
    '20261122T090712.345Z-smollm2-a7f3'
    """
    return Next(
        action=action, arguments={name: "…" if value is ... else value for name, value in arguments.items()}
    )
