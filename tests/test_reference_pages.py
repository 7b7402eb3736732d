"""The reference pages in docs/ say what the code defines, and the index names every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from generated_parts import assert_up_to_date
from mcp import Client
from reference_pages import (
    alias_table,
    error_table,
    fit_table,
    memory_table,
    process_table,
    python_sections,
    setting_tables,
    tool_sections,
)

from backpropagate.server.app import build_server
from backpropagate.training.error_catalogue import catalogue
from backpropagate.training.service import TrainingService

DOCS = Path(__file__).parents[1] / "docs"
LINK = re.compile(r"\]\(([^)#:]+\.md)(?:#([^)]*))?\)")


def test_the_page_of_settings_has_every_setting() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write this page and the others anew, and read the diff."""
    parts = {"settings": setting_tables(), "aliases": alias_table(), "process": process_table()}
    assert_up_to_date(DOCS / "settings.md", parts)


def test_the_page_of_memory_has_every_preset() -> None:
    assert_up_to_date(DOCS / "models-and-memory.md", {"memory": memory_table()})
    assert_up_to_date(DOCS / "models.md", {"fits": fit_table()})


@pytest.mark.anyio
async def test_the_page_of_tools_has_every_tool_and_argument(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        tools = (await client.list_tools()).tools
    assert_up_to_date(DOCS / "tools.md", {"tools": tool_sections(tools)})


def test_the_page_of_errors_has_every_code() -> None:
    assert_up_to_date(DOCS / "error-codes.md", {"errors": error_table()})


def test_the_page_of_the_python_api_has_every_public_name() -> None:
    assert_up_to_date(DOCS / "python-api.md", {"api": python_sections()})


def test_the_index_names_every_page() -> None:
    named = {page for page, _ in LINK.findall((DOCS / "README.md").read_text(encoding="utf-8"))}
    assert {page for page in named if "/" not in page} == {page.name for page in DOCS.glob("[!R]*.md")}


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_the_links_of_a_page_lead_to_pages_and_headings(page: str) -> None:
    for target, heading in LINK.findall((DOCS / page).read_text(encoding="utf-8")):
        text = (DOCS / target).read_text(encoding="utf-8")
        assert not heading or heading in anchors(text), (target, heading)


def anchors(text: str) -> set[str]:
    """The anchors that forges give to headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_troubleshooting_names_only_codes_that_exist() -> None:
    codes = {row["code"] for row in catalogue()}
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:INPUT|CONFIG|RUNTIME|DEP|STATE|PARTIAL)_[A-Z_]+)`", text))
    assert named and named <= codes, named - codes
