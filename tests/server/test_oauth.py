"""The server as an OAuth resource server, beside a real authorization server with real keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest
from authorization_server import AuthorizationServer, authorization_server
from http_server import HELLO, JSON, Served, modern, serving
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from backpropagate.cli.main import run as command
from backpropagate.server.access.access_token import TokenCheck, TokenRefusedError
from backpropagate.server.access.issuer import IssuerError, IssuerKeys

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server() as server:
        yield server


@pytest.fixture
def changing() -> Iterator[AuthorizationServer]:
    """An issuer of one test, which may change its keys."""
    with authorization_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, issuer: AuthorizationServer) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--oauth-issuer", issuer.url, home=folder / "home") as server:
        yield server


class Memory:
    """What a client keeps."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@asynccontextmanager
async def logged_in(url: str, mode: Any = "auto") -> AsyncIterator[Client]:
    """The SDK's client, whose user says yes in the browser."""
    answers: list[httpx.URL] = []

    async def browse(address: str) -> None:
        async with httpx.AsyncClient() as browser:
            answers.append(httpx.URL((await browser.get(address)).headers["location"]))

    async def answer() -> AuthorizationCodeResult:
        given = {name: values[0] for name, values in parse_qs(urlsplit(str(answers.pop())).query).items()}
        return AuthorizationCodeResult(code=given["code"], state=given.get("state"), iss=given.get("iss"))

    about = OAuthClientMetadata(client_name="test", redirect_uris=[AnyUrl("http://127.0.0.1:1/callback")])
    auth = OAuthClientProvider(url, about, Memory(), redirect_handler=browse, callback_handler=answer)
    async with (
        httpx.AsyncClient(auth=auth, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_that_knows_only_the_address_logs_in_and_calls(
    served: Served, issuer: AuthorizationServer, mode: str
) -> None:
    issuer.asked_scopes.clear()
    async with logged_in(served.url, mode) as client:
        listed = await client.call_tool("list_runs", {})
        assert not listed.is_error
        # A tool of the owner's account needs more: the client asks for it, and the call goes through.
        pushed = await client.call_tool("push_to_hub", {"run_id": "none", "repo": "a/b"})
        assert pushed.is_error and "[INPUT_RUN_NOT_FOUND]" in str(pushed.content)
    assert issuer.asked_scopes[0] == ["runs:read", "runs:write"]
    assert set(issuer.asked_scopes[-1]) == {"runs:read", "runs:write", "admin"}


async def test_the_metadata_names_the_resource_the_issuer_and_the_scopes(
    served: Served, issuer: AuthorizationServer
) -> None:
    async with httpx.AsyncClient() as anyone:
        refused = await anyone.post(served.url, json=HELLO, headers=JSON)
        assert refused.status_code == 401
        challenge = refused.headers["www-authenticate"]
        assert 'scope="runs:read runs:write"' in challenge and "error=" not in challenge
        at = challenge.partition('resource_metadata="')[2].partition('"')[0]
        metadata = (await anyone.get(at, headers={"origin": "http://app.example"})).json()
    assert at == served.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
    assert metadata["resource"] == served.url
    assert metadata["authorization_servers"] == [issuer.url]
    assert metadata["scopes_supported"] == ["runs:read", "runs:write", "admin"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"aud": "https://another.example/mcp"}, "another audience"),
        ({"aud": None}, "lacks one of"),
        ({"iss": "https://another.example"}, "another issuer"),
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "lacks one of"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"sub": None}, "lacks one of"),
        ({"sub": ""}, "no subject"),
    ],
)
async def test_a_token_for_somebody_else_of_somebody_else_or_out_of_date_is_refused(
    served: Served, issuer: AuthorizationServer, changed: dict[str, Any], said: str
) -> None:
    token = issuer.token(served.url, **changed)
    async with httpx.AsyncClient() as client:
        refused = await client.post(served.url, json=HELLO, headers=served.headers(token))
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert said in refused.json()["error_description"]


async def test_a_token_that_the_issuer_did_not_sign_is_refused(
    served: Served, issuer: AuthorizationServer
) -> None:
    good = issuer.token(served.url)
    head, claims, signature = good.split(".")
    none = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    with authorization_server() as other:
        other.url = issuer.url
        foreign = other.token(served.url)
    by_secret = hmac_token(issuer, served.url)
    forged = [
        f"{none}.{claims}.",
        f"{head}.{claims}.{signature[:-6]}AAAAAA",
        foreign,
        by_secret,
        "x",
        "." * 20_000,
    ]
    async with httpx.AsyncClient() as client:
        for token in forged:
            refused = await client.post(served.url, json=HELLO, headers=served.headers(token))
            assert refused.status_code == 401, token[:40]
        accepted = await client.post(served.url, json=HELLO, headers=served.headers(good))
        assert accepted.status_code != 401


def hmac_token(issuer: AuthorizationServer, audience: str) -> str:
    """Signed with the public key as if it were a shared secret."""
    import hashlib
    import hmac
    import json

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from jwt.utils import base64url_encode

    public = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = base64url_encode(json.dumps({"alg": "HS256", "kid": issuer.key_id}).encode())
    claims = issuer.token(audience).split(".")[1].encode()
    signed = head + b"." + claims
    return (signed + b"." + base64url_encode(hmac.digest(public, signed, hashlib.sha256))).decode()


@pytest.mark.parametrize(
    ("scopes", "tool", "needed"),
    [
        ("", "list_runs", "runs:read"),
        ("runs:read", "cancel_run", "runs:read runs:write"),
        ("runs:read other", "train", "runs:read runs:write"),
        ("runs:read runs:write", "push_to_hub", "runs:read runs:write admin"),
        ("runs:read", "no_such_tool", "runs:read runs:write"),
    ],
)
async def test_each_tool_needs_its_scope_and_the_challenge_names_it(
    served: Served, issuer: AuthorizationServer, scopes: str, tool: str, needed: str
) -> None:
    token = issuer.token(served.url, scopes)
    call = {"name": tool, "arguments": {}}
    legacy = {"json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}, "headers": {}}
    # The headers of the newest era may say anything: the body decides.
    lying = modern("tools/call", call, "list_runs")
    async with httpx.AsyncClient(headers=served.headers(token)) as client:
        for request in (legacy, modern("tools/call", call, tool), lying):
            refused = await client.post(served.url, **request)
            assert refused.status_code == 403
            challenge = refused.headers["www-authenticate"]
            assert 'error="insufficient_scope"' in challenge and f'scope="{needed}"' in challenge


async def test_a_wider_scope_includes_the_narrower_ones(served: Served, issuer: AuthorizationServer) -> None:
    for claims in ({"scope": "admin"}, {"scope": None, "scp": ["runs:write"]}):
        async with served.client(token=issuer.token(served.url, **claims)) as client:
            assert not (await client.call_tool("list_runs", {})).is_error


async def test_a_session_cannot_be_used_by_another_subject(
    served: Served, issuer: AuthorizationServer
) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        },
    }
    async with httpx.AsyncClient() as client:
        opened = await client.post(served.url, json=hello, headers=served.headers(issuer.token(served.url)))
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        theirs = {**served.headers(issuer.token(served.url, sub="eve")), **session}
        assert (await client.post(served.url, json=HELLO, headers=theirs)).status_code == 404
        assert (await client.delete(served.url, headers=theirs)).status_code == 404
        own = {**served.headers(issuer.token(served.url)), **session}
        assert (await client.post(served.url, json=HELLO, headers=own)).status_code == 200


async def test_keys_are_kept_and_fetched_again_when_they_change(changing: AuthorizationServer) -> None:
    keys = IssuerKeys(changing.url, pause_s=0)
    before, first = changing.fetches, changing.key_id
    for _ in range(3):
        assert await keys.key(first)
    assert changing.fetches == before + 1
    changing.rotate(elliptic=True)
    assert await keys.key(changing.key_id)
    assert await keys.key(first) is None  # withdrawn


@pytest.mark.parametrize(
    ("elliptic", "algorithm"), [(False, "RS256"), (False, "RS512"), (False, "PS256"), (True, "ES256")]
)
async def test_the_algorithms_of_public_keys_are_accepted(
    changing: AuthorizationServer, elliptic: bool, algorithm: str
) -> None:
    changing.rotate(elliptic=elliptic)
    check = TokenCheck(changing.url, "here", IssuerKeys(changing.url))
    access = await check.access(changing.token("here", algorithm=algorithm))
    assert access.principal == f"{changing.url} ada" and access.scopes == ("runs:read", "runs:write")


async def test_a_key_that_names_its_algorithm_is_for_no_other(
    changing: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = changing.shown_keys()
    shown["keys"][0]["alg"] = "RS256"
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}
    monkeypatch.setattr(changing, "shown_keys", lambda: {"keys": [*shown["keys"], secret, "rubbish"]})
    check = TokenCheck(changing.url, "here", IssuerKeys(changing.url))
    assert await check.access(changing.token("here"))
    for algorithm in ("RS512", "PS256"):
        with pytest.raises(TokenRefusedError):
            await check.access(changing.token("here", algorithm=algorithm))
    assert await check.keys.key("oct") is None


async def test_tokens_of_unknown_keys_do_not_make_it_fetch_again_and_again(
    changing: AuthorizationServer,
) -> None:
    keys = IssuerKeys(changing.url)
    assert await keys.key(changing.key_id)
    before = changing.fetches
    for number in range(50):
        assert await keys.key(f"unknown-{number}") is None
    assert changing.fetches == before


async def test_without_the_issuer_what_it_showed_before_still_counts(changing: AuthorizationServer) -> None:
    keys = IssuerKeys(changing.url, pause_s=0)
    assert await keys.key(changing.key_id)
    changing.is_broken = True
    assert await keys.key(changing.key_id)
    assert await keys.key("unknown") is None
    with pytest.raises(IssuerError):
        await IssuerKeys(changing.url).key(changing.key_id)


async def test_a_server_whose_issuer_is_away_says_so_and_refuses(tmp_path: Path) -> None:
    with serving(tmp_path, "--oauth-issuer", "http://127.0.0.1:1") as server:
        assert "keys cannot be had now" in server.said
        async with httpx.AsyncClient() as client:
            refused = await client.post(server.url, json=HELLO, headers=server.headers("a.b.c"))
        assert refused.status_code == 401  # no JWT at all
        assert not (server.home / "http-token").exists()


async def test_an_audience_of_its_own_replaces_the_address(
    tmp_path: Path, issuer: AuthorizationServer
) -> None:
    options = ["--oauth-issuer", issuer.url, "--oauth-audience", "api://backpropagate", "--read-only"]
    with serving(tmp_path, *options) as server:
        async with server.client(token=issuer.token("api://backpropagate")) as client:
            assert (await client.list_tools()).tools
        async with httpx.AsyncClient() as client:
            for audience, status in ((server.url, 401), ("api://backpropagate/", 401)):
                headers = server.headers(issuer.token(audience))
                refused = await client.post(server.url, json=HELLO, headers=headers)
                assert refused.status_code == status
                assert 'scope="runs:read"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--oauth-issuer", "http://issuer.example"], "has no TLS"),
        (["--oauth-issuer", "issuer.example"], "is not the URL of a server"),
        (["--oauth-audience", "x"], "--oauth-audience is for OAuth"),
        (["--oauth-issuer", "https://issuer.example", "--token-file", "x"], "two kinds of tokens"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_served(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["serve", "--http", "--port", "0", *options]) == 1
    assert said in " ".join(capsys.readouterr().err.split())
