"""One of the other processes of a training: `python -P -m backpropagate.training.worker.rank RUN_FOLDER`.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are those of torch.distributed.run. It reads the run folder and
the token cache of its home, and writes nothing but its log.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..config.settings import load_settings
from ..errors import RunInterruptedError, RuntimeFailure
from ..logs import configure_logging, lines_of_run, logger
from ..runs.folder import RunFolder
from ..runs.recorder import as_record
from .ranks import SHARDS, error_key
from .with_parent import WITH_PARENT, end_with_parent

if TYPE_CHECKING:
    from ..engine.plan import Data, Plan

BLAMED_S = 60.0
"""A rank that has lost another one waits, so that the one that ended first is seen to have done so."""


@dataclass(frozen=True)
class Place:
    """This process among the others, from its environment."""

    rank: int
    size: int
    shards: int
    host: str
    port: int

    @classmethod
    def here(cls) -> Place:
        names = ("RANK", "WORLD_SIZE", SHARDS, "MASTER_ADDR", "MASTER_PORT")
        rank, size, shards, host, port = (os.environ[name] for name in names)
        return cls(int(rank), int(size), int(shards), host, int(port))


def main() -> NoReturn:
    """Train as rank 0 says."""
    run, place = RunFolder(Path(sys.argv[1])), Place.here()
    if WITH_PARENT in sys.argv:
        # A scheduler ends a job by signals to all processes; the worker still has to save with this one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_with_parent()
    configure_logging(load_settings())
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    store = TCPStore(place.host, place.port, is_master=False, wait_for_workers=False)
    with lines_of_run(run.run_id):
        try:
            _follow(run, place, store)
        except BaseException as error:  # whatever it is, rank 0 tells it
            logger().exception("rank_failed", rank=place.rank)
            store.set(error_key(place.rank), as_record(error, run.log_path).model_dump_json())
            os._exit(1)
    os._exit(0)  # libraries' threads are not waited for


def _follow(run: RunFolder, place: Place, store: Any) -> None:
    from ..engine.follow import follow
    from ..engine.parallel.group import Group
    from ..engine.parallel.heartbeat import Heartbeat

    heartbeat = Heartbeat(place.host, place.port, place.rank, [], lambda rank: os._exit(1))
    group = Group(
        store,
        place.rank,
        place.size,
        here=place.shards,
        on_gpu=bool(os.environ.get("CUDA_VISIBLE_DEVICES")),
        heartbeat=heartbeat,
        lost=_another_is_gone,
    )
    follow(group, lambda plan: _examples(run, plan))
    heartbeat.end()
    group.leave()


def _examples(run: RunFolder, plan: Plan) -> Data:
    """What rank 0 has prepared.

    Raises:
        RuntimeFailure: the cache of the home does not have it.
    """
    from ..data.prepare import prepared_before
    from ..engine.plan import Data

    cache = run.path.parent.parent / "cache" / "tokens"
    data = prepared_before(cache, plan.tokens_key)
    if data is None:
        raise RuntimeFailure(
            "The tokens that the run's worker prepared are not in the cache of the home folder any more.",
            hint="Resume the run, which prepares them again.",
        )
    return Data(data.train, data.held_out)


def _another_is_gone() -> NoReturn:
    time.sleep(BLAMED_S)
    raise RunInterruptedError("Another process of the training is gone.")


if __name__ == "__main__":
    main()
