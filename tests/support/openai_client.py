"""The official `openai` package, with the address and the key of a server of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from http_server import Served
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

ENDED = ("succeeded", "failed", "cancelled")
PATIENCE_S = 180.0


@contextmanager
def openai_client(served: Served, token: str | None = None) -> Iterator[OpenAI]:
    url = served.url.replace("/mcp", "/v1")
    with OpenAI(base_url=url, api_key=token or served.token, max_retries=0, timeout=120) as client:
        yield client


def ended_job(client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    """The job, as soon as it has ended."""
    end = time.monotonic() + PATIENCE_S
    while job.status not in ENDED:
        assert time.monotonic() < end, f"waited in vain for {job.id}"
        time.sleep(0.1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job
