"""The ranks of one of the other hosts: `python -P -m … RUN_FOLDER NUMBER QUEUE`, kept alive by `leased.py`.

It takes devices in the queue of its host, as any run there does, says so by its stdout, and starts the ranks
when the world comes by its stdin. The lines of both are JSON.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..config.settings import load_settings
from ..errors import BackpropagateError
from ..hardware.devices import CPU, number_of_gpus, training_devices
from ..runs.device_queue import DeviceQueue, DeviceRequest, default_runtime_folder
from ..runs.folder import RunFolder
from ..runs.locks import FOREVER
from .interfaces import address_towards, interface_with
from .leased import exit_code
from .nodes import FIRST_RANK
from .with_parent import WITH_PARENT, open_stdin

LOOK_S = 0.2


def main() -> int:
    run, number, name = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
    worlds: queue.Queue[dict[str, str]] = queue.Queue()
    threading.Thread(target=_listen, args=(worlds,), daemon=True).start()
    places = DeviceQueue(load_settings().runtime_dir or default_runtime_folder(), name, FOREVER)
    try:
        devices = _taken(places, run.run_id, _request(number, name))
    except BackpropagateError as error:
        _say(error=error.record().model_dump(mode="json"))
        return 1
    _say(ready=True)
    world = worlds.get()
    return _ended([_started(run, world, local, devices) for local in range(number)])


def _request(number: int, name: str) -> DeviceRequest:
    """What the training needs here; rank 0 has a GPU exactly if the others have."""
    device = CPU if name == CPU else "cuda"
    there = training_devices(device)
    return DeviceRequest(name, there, number_of_gpus(number, device, there))


def _taken(places: DeviceQueue, run_id: str, request: DeviceRequest) -> list[str]:
    """Wait for the devices, which are held as long as the queue is."""
    places.hold_place(run_id)
    shown = -1
    while not (devices := places.try_take_several(run_id, request.slots, request.at_once)):
        ahead = places.ahead(run_id)
        if ahead != shown:
            shown = ahead
            _say(ahead=ahead)
        time.sleep(LOOK_S)
    return devices


def _started(
    run: RunFolder, world: dict[str, str], local: int, devices: list[str]
) -> subprocess.Popen[bytes]:
    environment = os.environ | interface_with(address_towards(world["MASTER_ADDR"])) | world
    environment |= {
        "RANK": str(int(environment.pop(FIRST_RANK)) + local),
        "LOCAL_RANK": str(local),
        "CUDA_VISIBLE_DEVICES": "" if devices == [CPU] else devices[local],
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.rank", str(run.path), WITH_PARENT],
        env=environment,
        stdin=subprocess.PIPE,  # closes when this process ends, however it does
        stdout=sys.stderr,
    )


def _ended(ranks: list[subprocess.Popen[bytes]]) -> int:
    """0 once all have ended, or the exit code of the first that fails: the others end with this process."""
    while True:
        codes = [rank.poll() for rank in ranks]
        if failed := next(filter(None, codes), 0):
            return exit_code(failed)
        if None not in codes:
            return 0
        time.sleep(LOOK_S)


def _say(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def _listen(worlds: queue.Queue[dict[str, str]]) -> None:
    for line in open_stdin():
        worlds.put(json.loads(line))
    os._exit(1)  # the connection has ended, and `leased.py` with it


if __name__ == "__main__":
    sys.exit(main())
