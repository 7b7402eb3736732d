"""The page that shows a run in clients with MCP Apps, as far as it can be tested without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from mcp import Client
from mcp.types import TextResourceContents

from backpropagate.server.app import build_server
from backpropagate.server.dashboard.mcp_app import FOLDER, SCRIPTS, URI, dashboard_page
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio
LIMIT = 100_000  # bytes
EMPTY = {"meta", "rect", "path"}


class Page(HTMLParser):
    """Elements, attributes, and the text of style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["style"], ["script"]):
            self.contents[self.open[-1]] = self.contents.get(self.open[-1], "") + data


@pytest.fixture
def page() -> Page:
    parsed = Page()
    parsed.feed(dashboard_page())
    assert not parsed.open
    return parsed


def test_the_page_is_small_and_its_policy_lets_only_its_own_style_and_script_run(page: Page) -> None:
    assert len(dashboard_page().encode()) < LIMIT
    (policy,) = [attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs]
    assert policy
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.contents[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.elements for name in attrs)


def test_the_page_loads_nothing_and_has_no_markup_from_text(page: Page) -> None:
    text = dashboard_page().replace("http://www.w3.org/2000/svg", "")
    for forbidden in (
        "http:", "https:", "src=", "href=", "url(", "@import", "fetch(", "XMLHttpRequest", "WebSocket",
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
    ):  # fmt: skip
        assert forbidden not in text, forbidden


def test_every_element_that_a_script_names_exists_once(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    named = set(re.findall(r'byId\("([\w-]+)"\)', page.contents["script"]))
    assert len(named) > 15 and named <= set(ids)
    referred = [
        value for _, attrs in page.elements for name, value in attrs.items() if name == "aria-labelledby"
    ]
    assert set(referred) <= set(ids)


def test_every_file_of_the_page_is_in_it(page: Page) -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {"page.html", "style.css", *SCRIPTS}
    for name in files - {"page.html"}:
        assert (FOLDER / name).read_text(encoding="utf-8") in dashboard_page()


async def test_the_tools_that_show_a_run_name_the_page_in_both_spellings(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        metas = {tool.name: tool.meta or {} for tool in (await client.list_tools()).tools}
        (content,) = (await client.read_resource(URI)).contents
    for spelling in ({"ui": {"resourceUri": URI}}, {"ui/resourceUri": URI}):
        shown = {name for name, meta in metas.items() if spelling.items() <= meta.items()}
        assert shown == {"train", "multi_run", "get_run", "resume_run"}
    assert isinstance(content, TextResourceContents) and content.text == dashboard_page()
    assert content.mime_type == "text/html;profile=mcp-app"
    assert content.meta and content.meta["ui"]["csp"] == {"connectDomains": [], "resourceDomains": []}


async def test_a_server_that_only_reads_has_a_page_that_cannot_stop_a_run(service: TrainingService) -> None:
    for read_only, may_stop in ((False, "true"), (True, "false")):
        async with Client(build_server(service, read_only=read_only)) as client:
            (content,) = (await client.read_resource(URI)).contents
        assert isinstance(content, TextResourceContents)
        parsed = Page()
        parsed.feed(content.text)
        assert dict(parsed.elements)["body"] == {"data-may-stop": may_stop}
