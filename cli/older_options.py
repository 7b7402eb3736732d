"""Earlier versions' options without a meaning here: refused with the way to do it, or noted and ignored."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from ..training.errors import InputError
from .wrapped import say

TOKEN = "Every user of the machine can read a command line. Set HF_TOKEN, or use `hf auth login`."
HOME = "All runs are in one home folder; BACKPROPAGATE_HOME sets it."
PUSH = "Export first, then run `backprop push RUN --repo OWNER/NAME`."
SUPERVISED = "The training is supervised fine-tuning with LoRA."

OF_LOGS = {
    "--log-level": "Set BACKPROPAGATE_LOG_LEVEL.",
    "--log-format": "Set BACKPROPAGATE_LOG_JSON.",
    "--log-file": "Set BACKPROPAGATE_LOG_FILE.",
}
"""Of every command."""
OTHER_METHODS = """--mode --method --orpo-beta --simpo-beta --simpo-gamma --kto-beta --kto-desirable-weight
    --kto-undesirable-weight --full-ft-ceiling-billions --full-ft-offload --full-ft-engine
    --switch-block-every --block-order --block-writeback --block-freeze-embeddings"""
OF_TRAININGS = {
    **dict.fromkeys(OTHER_METHODS.split(), SUPERVISED),
    "--use-dora": "Use --lora-rslora, or plain LoRA.",
    "--init-lora-weights": "LoRA is initialised as in its paper.",
    "--optim": "The optimizer is AdamW.",
    "--fp8": "Use --base-precision fp8; --load-in-4bit needs the least memory.",
    "--backend": "Use --engine and --device.",
    "--gpu-max-temp": "Set BACKPROPAGATE_GPU__PAUSE_C.",
    "--run-name": "A run is named after its time and its model.",
    "--reasoning-trace": "Reasoning in a row is read and trained on as it is.",
}
TIES = "Of TIES and DARE nothing is here: --merge-mode has slao, simple and average."
GATE = "Use --max-forgetting."

REFUSED = {
    "train": OF_TRAININGS,
    "multi-run": {
        **OF_TRAININGS,
        **dict.fromkeys(("--merge-strategy", "--ties-trim", "--dare-drop-rate", "--dare-seed"), TIES),
        **dict.fromkeys(
            ("--drift-gate", "--drift-threshold", "--eval-gate", "--eval-max-regression", "--eval-heldout"),
            GATE,
        ),
    },
    "export": {
        "--push-to-hub": PUSH,
        "--hub-private": f"{PUSH} A new repository is private.",
        "--hub-token": TOKEN,
        "--hub-token-file": TOKEN,
    },
    "push": {
        "--token": TOKEN,
        "--token-file": TOKEN,
        "--include-base": "Run `backprop export RUN --format merged`, then push its folder: it has the base.",
    },
    "diff-runs": {"--format": "Use --json, or no option for a table."},
    "resume": {"--output": HOME},
    "list-runs": {"--output": HOME},
    "show-run": {"--output": HOME},
}
"""Command → option → what to do instead."""

NO_PACKING = {"--no-packing": "Packed rows do not see each other; there is nothing to turn off."}
WHOLE = {"--no-4bit": "The base has 16 bits unless --load-in-4bit is given."}

IGNORED = {
    "train": {**NO_PACKING, **WHOLE},
    "multi-run": {**NO_PACKING, **WHOLE},
    "plan": WHOLE,
    "export": {
        "--no-model-card": "A model card is always written beside a folder; delete its README.md if you "
        "do not want it."
    },
    "info": {"--env-vars": "The variables are in the list of settings."},
}
"""Command → option without a value → what is said."""


GONE = {
    "replay": "Start it again with the options that `backprop show-run ID` shows.",
    "export-runs": "Use `backprop list-runs --json`.",
    "ollama": "Use Ollama's own commands: `ollama list`, `ollama rm NAME`. To register a model: "
    "`backprop export RUN --ollama --ollama-name NAME`.",
}
"""Command → what to do instead."""


def add_older_options(command: click.Command) -> None:
    """Add the options of earlier versions that the command has not."""
    own = {name for parameter in command.params for name in parameter.opts}
    for option, instead in {**OF_LOGS, **REFUSED.get(command.name or "", {})}.items():
        if option not in own:
            refuse = partial(_refuse, option, instead)
            command.params.append(_hidden(option, refuse, is_flag=False, flag_value=""))
    for option, note in IGNORED.get(command.name or "", {}).items():
        if option not in own:
            command.params.append(_hidden(option, partial(_ignore, option, note), is_flag=True))


def _hidden(option: str, callback: Any, **kind: Any) -> click.Option:
    return click.Option([option], hidden=True, expose_value=False, is_eager=True, callback=callback, **kind)


def _refuse(
    option: str, instead: str, _ctx: click.Context, _parameter: click.Parameter, value: object
) -> None:
    if value is not None:
        raise InputError(f"{option} is not an option here.", hint=instead)


def _ignore(option: str, note: str, _ctx: click.Context, _parameter: click.Parameter, value: object) -> None:
    if value:
        say(f"{option} is ignored: {note[0].lower()}{note[1:]}", err=True)
