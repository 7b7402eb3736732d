"""Where the user has to agree, the client asks; a client that cannot ask is told what consents."""

from __future__ import annotations

from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult, TextContent

from backpropagate.server.app import build_server
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@pytest.fixture
def run(service: TrainingService) -> RunFolder:
    spec = TrainSpec(model=ModelGroup(name="a/b"), data=DataGroup(source="/a.jsonl"))
    return finished_run(service.store, spec, {"steps": 3, "total_steps": 3})


class Person:
    """Answers the questions of a client, and remembers them."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params.message)
        return self._answers.pop(0)


YES = ElicitResult(action="accept", content={"yes": True})
UNTICKED = ElicitResult(action="accept", content={"yes": False})
NO = ElicitResult(action="decline")
NOBODY = ElicitResult(action="cancel")


async def delete(
    service: TrainingService, run: RunFolder, mode: Any, person: Person | None = None, **more: object
) -> tuple[bool, str]:
    async with Client(build_server(service), mode=mode, elicitation_callback=person) as client:
        answer = await client.call_tool("delete_run", {"run_id": run.run_id, **more})
    assert isinstance(answer.content[0], TextContent)
    return bool(answer.is_error), answer.content[0].text


@ERAS
async def test_the_user_is_asked_once_and_a_yes_removes_the_run(
    service: TrainingService, run: RunFolder, mode: Any
) -> None:
    person = Person(YES)
    failed, said = await delete(service, run, mode, person)
    assert not failed and run.run_id in said and not run.path.exists()
    assert len(person.asked) == 1 and run.run_id in person.asked[0]


@ERAS
@pytest.mark.parametrize("answer", [NO, UNTICKED])
async def test_a_no_changes_nothing_and_tells_not_to_ask_again(
    service: TrainingService, run: RunFolder, mode: Any, answer: ElicitResult
) -> None:
    failed, said = await delete(service, run, mode, Person(answer))
    assert failed and "[INPUT_DECLINED]" in said and "Do not ask again" in said
    assert run.path.exists()


@ERAS
@pytest.mark.parametrize("person", [None, Person(NOBODY, NOBODY)])
async def test_where_nobody_could_be_asked_the_answer_says_what_consents(
    service: TrainingService, run: RunFolder, mode: Any, person: Person | None
) -> None:
    failed, said = await delete(service, run, mode, person)
    assert failed and "[INPUT_CONFIRMATION_NEEDED]" in said
    assert "Ask the user" in said and "confirmed=true" in said and run.path.exists()
    failed, said = await delete(service, run, mode, confirmed=True)
    assert not failed and not run.path.exists() and "list_runs()" in said


async def test_a_run_that_is_not_over_is_refused_with_the_call_that_ends_it(
    service: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrainSpec(model=ModelGroup(name="a/b"), data=DataGroup(source="/a.jsonl"))
    run = service.store.create(spec)
    failed, said = await delete(service, run, "auto", confirmed=True)
    assert failed and "cancel_run(" in said and run.path.exists()
