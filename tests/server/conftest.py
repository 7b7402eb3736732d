"""A training as a client asked for it, for all that clients can read of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from facts import write_dataset
from mcp import Client
from mcp.server import MCPServer
from mcp.types import CallToolResult

from backpropagate.server.app import build_server
from backpropagate.training.config.settings import load_settings
from backpropagate.training.service import TrainingService


@dataclass(frozen=True)
class Trained:
    """A completed training of four steps, what the call was answered, and the server with it."""

    server: MCPServer[Any]
    data: Path
    answer: CallToolResult

    @property
    def fields(self) -> dict[str, Any]:
        assert self.answer.structured_content
        return self.answer.structured_content


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data = write_dataset(folder / "facts.jsonl")
    request = {
        "dataset": str(data), "model": str(tiny_model), "steps": 4, "batch_size": 2,
        "questions": ["What is the value of zorvex?"], "wait_s": 600,
    }  # fmt: skip

    async def train() -> CallToolResult:
        async with Client(server) as client:
            return await client.call_tool("train", request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(folder / "home"))
        patch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(folder / "runtime"))
        server = build_server(TrainingService(load_settings()), [folder, tiny_model.parent])
        return Trained(server, data, anyio.run(train))
