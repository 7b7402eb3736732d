"""Every message that the server sends is one of the protocol's, by the schemas of the specification."""

from __future__ import annotations

import json
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from raw_server import TASKS, RawServer, envelope

Json = dict[str, Any]

SCHEMAS = Path(__file__).parent / "schemas"
OLD, NEW = "2025-11-25", "2026-07-28"
RESULTS = {
    "initialize": "InitializeResult",
    "ping": "EmptyResult",
    "server/discover": "DiscoverResult",
    "tools/list": "ListToolsResult",
    "tools/call": "CallToolResult",
    "resources/list": "ListResourcesResult",
    "resources/templates/list": "ListResourceTemplatesResult",
    "resources/read": "ReadResourceResult",
    "prompts/list": "ListPromptsResult",
    "prompts/get": "GetPromptResult",
    "completion/complete": "CompleteResult",
}
NOTIFICATIONS = {
    "notifications/progress": "ProgressNotification",
    "notifications/message": "LoggingMessageNotification",
    "notifications/resources/updated": "ResourceUpdatedNotification",
    "notifications/resources/list_changed": "ResourceListChangedNotification",
}


@cache
def validator(schema: str, name: str) -> Draft202012Validator:
    definitions = json.loads((SCHEMAS / f"{schema}.json").read_text())["$defs"]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


class Checked:
    """A server of which every message is checked.

    Args:
        version: of the protocol.
    """

    def __init__(self, server: RawServer, version: str) -> None:
        self._server, self._version = server, version
        self._meta = envelope() if version == NEW else {}
        self._outputs: dict[str, Json] = {}

    def ask(self, method: str, **params: Any) -> Json:
        heard = len(self._server.heard)
        meta = {**self._meta, "progressToken": f"token-{heard}"}
        answer = self._server.ask(method, params, meta)
        for message in self._server.heard[heard:-1]:
            self._check(NOTIFICATIONS[message["method"]], message)
        if "error" in answer:
            self._check("JSONRPCErrorResponse", answer)
            return answer["error"]
        self._check("JSONRPCResultResponse", answer)
        self._check(RESULTS[method], answer["result"])
        return answer["result"]

    def list_tools(self) -> None:
        for tool in self.ask("tools/list")["tools"]:
            Draft202012Validator.check_schema(tool["inputSchema"])
            Draft202012Validator.check_schema(tool["outputSchema"])
            self._outputs[tool["name"]] = tool["outputSchema"]

    def call(self, name: str, /, **arguments: Any) -> Json:
        result = self.ask("tools/call", name=name, arguments=arguments)
        assert any(content["type"] == "text" for content in result["content"]), name
        if not result.get("isError"):
            Draft202012Validator(self._outputs[name]).validate(result["structuredContent"])
        return result

    def _check(self, name: str, value: Json) -> None:
        problems = [
            f"{list(e.absolute_path)}: {e.message}" for e in validator(self._version, name).iter_errors(value)
        ]
        assert not problems, (name, problems, value)


def begin(server: RawServer, checked: Checked, version: str) -> None:
    if version == NEW:
        checked.ask("server/discover")
        return
    checked.ask(
        "initialize", protocolVersion=version, capabilities={}, clientInfo={"name": "raw", "version": "0"}
    )
    server.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})
    checked.ask("ping")


@pytest.mark.slow
@pytest.mark.parametrize("version", [OLD, NEW])
def test_every_message_is_one_of_the_protocols(
    home: Path, dataset: Path, tiny_model: Path, version: str
) -> None:
    data: Json = {"dataset": str(dataset), "model": str(tiny_model)}
    with RawServer(dataset.parent, tiny_model) as server:
        checked = Checked(server, version)
        begin(server, checked, version)
        checked.list_tools()
        for resource in checked.ask("resources/list")["resources"]:
            checked.ask("resources/read", uri=resource["uri"])
        for prompt in checked.ask("prompts/list")["prompts"]:
            checked.ask("prompts/get", name=prompt["name"], arguments={"goal": "x"})
        assert checked.ask("prompts/get", name="nonsense")["code"] == -32602
        assert checked.ask("resources/read", uri="run://nonsense")["code"] in (-32602, -32002)
        for tool in ("gpu_status", "list_runs"):
            checked.call(tool)
        checked.call("inspect_dataset", **data)
        small = {"batch_size": 2, "lora_r": 4}
        trained = checked.call("train", **data, **small, steps=5, questions=["What is the value of zorvex?"])
        run_id = trained["structuredContent"]["run_id"]
        assert any(message.get("method") == "notifications/progress" for message in server.heard)
        checked.call("get_run", run_id=run_id, detail="full")
        checked.call("list_runs", limit=3)
        for template in checked.ask("resources/templates/list")["resourceTemplates"]:
            uri = re.sub(r"\{\?.*?\}", "", template["uriTemplate"])
            checked.ask("resources/read", uri=uri.replace("{run_id}", run_id))
            ref = {"type": "ref/resource", "uri": template["uriTemplate"]}
            checked.ask("completion/complete", ref=ref, argument={"name": "run_id", "value": run_id[:4]})
        live = checked.call("train", **data, **small, steps=100_000, wait_s=0)["structuredContent"]["run_id"]
        checked.call("cancel_run", run_id=live)
        checked.call("get_run", run_id=live, wait_s=60)
        for name, wrong in (
            ("train", {"dataset": "/nowhere.jsonl"}),
            ("register_ollama", {"path": "/nowhere.gguf", "name": "x"}),
            ("get_run", {"run_id": "nonsense"}),
        ):
            assert checked.call(name, **wrong)["isError"]


@pytest.mark.slow
def test_every_message_about_a_task_is_one_of_the_extensions(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    def check(name: str, answer: Json) -> Json:
        validator("tasks", name).validate(answer["result"])
        return answer["result"]

    with RawServer(dataset.parent, tiny_model) as server:
        arguments = {"dataset": str(dataset), "model": str(tiny_model), "steps": 2, "batch_size": 2}
        call = {"name": "train", "arguments": arguments}
        task = check("CreateTaskResult", server.ask("tools/call", call, envelope(TASKS)))
        named = {"taskId": task["taskId"]}
        got = check("GetTaskResult", server.ask("tasks/get", named))
        while got["status"] == "working":
            time.sleep(0.1)
            got = check("GetTaskResult", server.ask("tasks/get", named))
        validator(NEW, "CallToolResult").validate(got["result"])
        check("CancelTaskResult", server.ask("tasks/cancel", named))
        check("UpdateTaskResult", server.ask("tasks/update", {**named, "inputResponses": {}}))
