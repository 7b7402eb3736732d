"""How an attempt ended whose worker did not say so, and whether there can be another one."""

from __future__ import annotations

from ..errors import InputError, RunInterruptedError
from ..next_step import then
from ..untrusted import short_name
from .folder import ENDED, RunFolder, RunState, Status
from .identity import boot_id, now, same_host
from .kinds import kind_of
from .locks import is_free
from .saved_result import ended_with_result


def worker_is_gone(run: RunFolder, state: RunState) -> bool:
    """Whether an attempt has begun on this machine, has not ended, and nobody carries it out any more."""
    if state.status in ENDED or not same_host(state.host):
        return False
    if state.pid is None:  # queued, and no worker has started yet
        return False
    if state.status is Status.QUEUED and state.boot_id != boot_id():
        return False  # it was waiting when the machine restarted: its worker is started again
    return is_free(run.lock_path)


def require_resumable(run: RunFolder, state: RunState) -> None:
    """Refuse another attempt of a run that has completed, or that belongs to another machine.

    Raises:
        InputError: there can be none.
    """
    if state.cluster is None and not same_host(state.host):
        host = short_name(state.host)
        raise InputError(f"Run {run.run_id} belongs to {host}.", hint=f"Resume it on {host}.")
    if state.status is Status.COMPLETED and state.kind == "multi_run":
        raise InputError(
            f"Run {run.run_id} has completed; there is nothing to resume.",
            hint="To add runs, start a multi-run that continues from it.",
            next=then("multi_run", continue_from=run.run_id, dataset=...),
        )
    if state.status is Status.COMPLETED:
        raise InputError(
            f"Run {run.run_id} has completed; there is nothing to resume.",
            hint="To continue training, start a run from its adapter with more steps.",
            next=then("train", resume=run.run_id, steps=...),
        )


def interrupted(run_id: str, state: RunState) -> RunState:
    """The state of a run whose worker is gone: completed if its result was saved."""
    if state.result is not None:  # the adapter is saved; only later steps are missing
        return ended_with_result(
            state, "The worker exited after the adapter was saved: a copy or answers may be missing."
        )
    if state.boot_id != boot_id():
        message = "The machine was restarted during the run."
    else:
        message = (
            f"The run's worker process (pid {state.pid}) exited unexpectedly: it was killed, "
            "or the machine ran out of memory."
        )
    error = RunInterruptedError(
        message,
        hint=f"worker.log in the run folder has details. {_how_to_continue(state.kind)}",
        next=then("resume", run_id=run_id),
    )
    return state.model_copy(update={"status": Status.INTERRUPTED, "ended_at": now(), "error": error.record()})


def _how_to_continue(kind: str) -> str:
    if not kind_of(kind).checkpoints:
        return "If memory ran out, free some. Resuming starts it again; no incomplete files remain."
    return (
        "If memory ran out, use a smaller batch_size or max_seq_length. "
        "Resuming continues from the last checkpoint, if there is one."
    )
