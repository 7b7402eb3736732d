"""The tools for agents: one file per tool, and this list, in the order of their use."""

from __future__ import annotations

from .cancel_run import cancel_run
from .context import AgentTool
from .delete_run import delete_run
from .evaluate import Evaluated, evaluate
from .export_gguf import export_gguf
from .generate import generate
from .get_log import get_log
from .get_run import get_run
from .gpu_status import gpu_status
from .inspect_dataset import inspect_dataset
from .list_models import list_models
from .list_runs import list_runs
from .multi_run import multi_run
from .plan_train import plan_train
from .push_to_hub import publication, push_to_hub
from .register_ollama import register_ollama
from .resume_run import resume_run
from .status import run_status
from .train import train

TOOLS = (
    AgentTool(
        inspect_dataset,
        "Inspect a dataset",
        read_only=True,
        destructive=False,
        idempotent=True,
        open_world=True,
        always_load=True,
    ),
    AgentTool(
        train,
        "Fine-tune a model",
        read_only=False,
        destructive=False,
        idempotent=True,
        open_world=True,
        always_load=True,
        of_run=run_status,
        shows_run=True,
    ),
    AgentTool(
        plan_train,
        "Plan a training",
        read_only=True,
        destructive=False,
        idempotent=True,
        open_world=True,
    ),
    AgentTool(
        get_run,
        "Show a run",
        read_only=True,
        destructive=False,
        idempotent=True,
        open_world=False,
        always_load=True,
        shows_run=True,
    ),
    AgentTool(list_runs, "List runs", read_only=True, destructive=False, idempotent=True, open_world=False),
    AgentTool(generate, "Ask a model", read_only=False, destructive=False, idempotent=True, open_world=True),
    AgentTool(
        evaluate,
        "Compare two models",
        read_only=False,
        destructive=False,
        idempotent=True,
        open_world=True,
        of_run=Evaluated.of,
    ),
    AgentTool(
        export_gguf,
        "Export to GGUF",
        read_only=False,
        destructive=False,
        idempotent=True,
        open_world=True,
        of_run=run_status,
    ),
    AgentTool(
        register_ollama,
        "Register with Ollama",
        read_only=False,
        destructive=True,
        idempotent=True,
        open_world=True,
        of_run=run_status,
    ),
    AgentTool(
        multi_run,
        "Fine-tune in runs",
        read_only=False,
        destructive=False,
        idempotent=True,
        open_world=True,
        of_run=run_status,
        shows_run=True,
    ),
    AgentTool(
        resume_run,
        "Resume a run",
        read_only=False,
        destructive=False,
        idempotent=True,
        open_world=True,
        of_run=run_status,
        shows_run=True,
    ),
    AgentTool(
        cancel_run, "Cancel a run", read_only=False, destructive=True, idempotent=True, open_world=False
    ),
    AgentTool(get_log, "Show a log", read_only=True, destructive=False, idempotent=True, open_world=False),
    AgentTool(
        list_models, "List models", read_only=True, destructive=False, idempotent=True, open_world=False
    ),
    AgentTool(gpu_status, "GPU status", read_only=True, destructive=False, idempotent=True, open_world=False),
    AgentTool(
        push_to_hub,
        "Publish on the Hub",
        read_only=False,
        destructive=True,
        idempotent=True,
        open_world=True,
        of_run=publication,
    ),
    AgentTool(
        delete_run, "Remove a run", read_only=False, destructive=True, idempotent=True, open_world=False
    ),
)
