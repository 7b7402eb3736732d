"""The page under attack: what is sent by others than a page of ours changes nothing and tells nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from web_page import Page, serving_page

from backpropagate.web.app import _routes
from backpropagate.web.guard import BURST, FORM_BYTES, HEADERS, PER_S
from backpropagate.web.rate_limit import RateLimit

EVIL = "http://evil.example"
POSTS = [route.path.replace("{run_id}", "x") for route in _routes() if "POST" in (route.methods or ())]
GETS = ["/", "/runs", "/train", "/multi-run", "/dataset", "/export", "/ask", "/models", "/login", "/nowhere"]


def files_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "audit.jsonl"}


# --- Who asks. ---
def test_without_a_session_nothing_can_be_sent(page: Page) -> None:
    for path in POSTS:
        answer = httpx.post(f"{page.url}{path}", data={"csrf": "0" * 64}, headers={"origin": page.url})
        assert (answer.status_code, answer.text) == (403, "There is no session: open the page again."), path


def test_a_form_without_the_token_of_its_session_is_refused(page: Page) -> None:
    with page.new_browser() as stranger:
        strange = stranger.token()
    page.get("/runs")
    for token in ("", "0" * 64, strange, "é"):
        for path in POSTS:
            answer = page.post(path, {"csrf": token})
            assert answer.status_code == 403 and "too old" in answer.text, path


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "https://localhost", None])
def test_a_request_of_another_site_is_refused(page: Page, origin: str | None) -> None:
    token = page.token()
    headers = {"origin": origin} if origin else {}
    for path in POSTS:
        answer = page.client.post(f"{page.url}{path}", data={"csrf": token}, headers=headers)
        assert answer.status_code == 403 and "does not come from a page" in answer.text, path
    if origin:
        assert page.get("/runs", headers=headers).status_code == 403


def test_a_form_that_another_site_makes_the_browser_send_is_refused(page: Page) -> None:
    for site in ("cross-site", "same-site", "none"):
        answer = page.post("/train", headers={"sec-fetch-site": site})
        assert answer.status_code == 403
    loaded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert page.get("/runs", headers=loaded).status_code == 403
    visited = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert page.get("/runs", headers=visited).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "x.trycloudflare.com", ""])
def test_another_name_of_this_machine_gets_nothing(page: Page, host: str) -> None:
    for path in ("/runs", "/static/site.js"):
        assert page.get(path, headers={"host": host}).status_code in (400, 421)
    assert page.post("/train", headers={"host": host}).status_code in (400, 421)


def test_a_second_host_and_other_methods_are_refused(page: Page) -> None:
    address = page.url.removeprefix("http://")
    host, _, port = address.partition(":")
    for request in (
        f"GET /runs HTTP/1.1\r\nHost: {address}\r\nHost: evil.example\r\n\r\n",
        f"PUT /runs HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n",
        f"TRACE / HTTP/1.1\r\nHost: {address}\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(request.encode())
            assert connection.recv(4096).split(b" ")[1] in (b"400", b"405", b"421")


# --- Passwords. ---
@pytest.fixture(scope="module")
def with_password(user: Path) -> Iterator[Page]:
    with serving_page(auth="ann:correct horse") as served:
        yield served


@pytest.fixture
def closed(with_password: Page) -> Page:
    with_password.calm_down()
    with_password.client.cookies.clear()
    return with_password


def test_with_a_password_every_page_leads_to_the_login_and_nothing_can_be_sent(closed: Page) -> None:
    for path in [*GETS, "/runs/x", "/runs/x/curve.png"]:
        answer = closed.get(path)
        assert (
            answer.status_code == 200
            if path == "/login"
            else answer.headers["location"].startswith("/login?")
        )
    assert closed.get("/runs/x/stream").status_code == closed.get("/runs/stream").status_code == 401
    for path in POSTS:
        if path not in ("/login", "/logout"):
            assert closed.post(path).headers["location"].startswith("/login?"), path


def test_the_password_opens_it_and_leaving_makes_its_cookie_void(closed: Page) -> None:
    before = dict(closed.client.cookies) if closed.get("/login") else {}
    answer = closed.post("/login", {"user": "ann", "password": "correct horse", "next": "/models"})
    assert answer.status_code == 303 and answer.headers["location"] == "/models"
    stolen = dict(closed.client.cookies)
    assert stolen != before and closed.get("/models").status_code == 200
    assert "ann" in closed.get("/runs").text
    closed.post("/logout")
    for cookies in (before, stolen):
        with httpx.Client(cookies=cookies) as thief:
            assert thief.get(f"{closed.url}/runs").status_code == 303


def test_a_forged_cookie_is_none(closed: Page) -> None:
    closed.get("/login")
    (name, value), *_ = dict(closed.client.cookies).items()
    header, claims, signature = value.split(".")
    for forged in ("x", f"{header}.{claims}.AAAA", f"eyJhbGciOiJub25lIn0.{claims}.", signature):
        with httpx.Client(cookies={name: forged}) as client:
            assert client.get(f"{closed.url}/runs").headers["location"].startswith("/login")


def test_passwords_cannot_be_tried_many_times(closed: Page) -> None:
    answers = [closed.post("/login", {"user": "ann", "password": f"guess {n}"}).status_code for n in range(7)]
    assert answers == [401] * 5 + [429] * 2
    assert closed.post("/login", {"user": "ann", "password": "correct horse"}).status_code == 429
    log = closed.desk.log.path.read_text()
    assert log.count('"refused"') >= 5 and "guess" not in log and "correct horse" not in log


@pytest.mark.parametrize(
    "leading", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x"]
)
def test_the_login_leads_to_pages_of_ours_only(closed: Page, leading: str) -> None:
    answer = closed.post("/login", {"user": "ann", "password": "correct horse", "next": leading})
    assert answer.headers["location"] == "/"


# --- Paths. ---
ELSEWHERE = ["../x", "../../x", "/etc/x", "/var/x", "~/.ssh/x", "~/.aws/x", "a/../../x", "..", ".", "/tmp/x"]


def test_nothing_is_written_outside_the_output_folder(page: Page, dataset: Path, user: Path) -> None:
    before = files_under(user.parent)
    token = page.token()
    for given in ELSEWHERE:
        training = {"csrf": token, "dataset": str(dataset), "steps": "1", "output": given}
        for path, form in (
            ("/train", training),
            ("/multi-run", training),
            ("/export", {"csrf": token, "source": "smollm2-135m", "format": "merged", "output": given}),
        ):
            answer = page.post(path, form)
            assert answer.status_code == 422 and "UI_OUTPUT_DIR_FORBIDDEN" in answer.text, (path, given)
    assert files_under(user.parent) == before and not page.service.store.ids()


def test_a_link_in_the_output_folder_does_not_lead_out_of_it(page: Page, user: Path) -> None:
    page.outputs.mkdir(parents=True, exist_ok=True)
    (page.outputs / "way").symlink_to(user / ".ssh")
    answer = page.post("/export", {"source": "smollm2-135m", "output": "way/x"})
    assert "UI_OUTPUT_DIR_FORBIDDEN" in answer.text
    answer = page.post("/dataset", {"dataset": "./way/id_ed25519"})
    (page.outputs / "way").unlink()
    assert "INPUT_PATH_FORBIDDEN" in answer.text and "BEGIN OPENSSH" not in answer.text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/dataset", "dataset"),
        ("/train", "dataset"),
        ("/train", "model"),
        ("/multi-run", "dataset"),
        ("/multi-run", "tasks"),
        ("/multi-run", "continue_from"),
        ("/export", "source"),
        ("/register", "gguf"),
        ("/ask", "source"),
    ],
)
def test_no_field_reads_what_is_closed(page: Page, dataset: Path, path: str, field: str) -> None:
    rest = {"dataset": str(dataset), "prompts": "Hi", "name": "m", "steps": "1"}
    for given in (
        "~/.ssh/id_ed25519",
        "../../user/.ssh/id_ed25519",
        "/etc/passwd",
        "~/.ssh\0",
        "/" + "x" * 5000,
    ):
        form = {**rest, field: given}
        if field == "tasks":
            form.pop("dataset")
        answer = page.post(path, form)
        assert answer.status_code in (422, 400), (path, given, answer.text)
        assert re.search(r"INPUT_|UI_", answer.text) and "BEGIN OPENSSH" not in answer.text
    assert not page.service.store.ids()


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "page.css/../../a.py", "x", ""]
)
def test_only_the_files_of_the_page_are_served(page: Page, name: str) -> None:
    assert page.get(f"/static/{name}").status_code in (404, 307)
    assert page.get(f"/runs/{name or 'x'}").status_code == 404


def test_a_shared_page_does_not_read_the_users_home(user: Path) -> None:
    (user / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with serving_page(share=True, auth="ann:correct horse") as shared:
        shared.post("/login", {"user": "ann", "password": "correct horse"})
        answer = shared.post("/dataset", {"dataset": str(user / "mine.jsonl")})
        assert answer.status_code == 422 and "INPUT_PATH_FORBIDDEN" in answer.text


# --- Sizes and floods. ---
def test_an_upload_of_100_mb_is_refused_at_once_and_without_a_length_too(page: Page) -> None:
    token, sent = page.token(), 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + token.encode() + b"\r\n"
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        for _ in range(100):
            sent += 1
            yield b"x" * 2**20

    headers = {"origin": page.url, "content-type": "multipart/form-data; boundary=b"}
    told = {**headers, "content-length": str(100 * 2**20)}
    address = page.url.removeprefix("http://")
    with socket.create_connection(tuple(address.split(":"))) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": address, **told}.items())
        connection.sendall(f"POST /dataset/upload HTTP/1.1\r\n{lines}\r\n".encode())
        assert b" 413 " in connection.recv(4096)
    try:
        answer = page.client.post(f"{page.url}/dataset/upload", content=pieces(), headers=headers)
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        pass  # the server answered, and closed the connection before all was sent
    assert sent < 100 and not files_under(page.outputs)
    assert page.get("/runs").status_code == 200


def test_a_form_beyond_its_limits_is_refused(page: Page) -> None:
    assert page.post("/train", {"dataset": "x" * (FORM_BYTES + 1)}).status_code == 413
    many = page.post("/train", {f"field{n}": "1" for n in range(500)})
    assert many.status_code == 400 and "too many" in many.text.lower()


def test_an_upload_gets_a_plain_name_in_the_output_folder_and_replaces_nothing(page: Page) -> None:
    row = b'{"prompt": "a", "completion": "b"}\n'
    for name in ("../../evil.jsonl", "C:\\x\\evil.jsonl", "/etc/evil.jsonl"):
        page.post("/dataset/upload", {"model": "x" * 3}, files={"file": (name, row)})
    assert {path.name for path in files_under(page.outputs)} == {"evil.jsonl", "evil-2.jsonl", "evil-3.jsonl"}
    for name in ("evil.py", ".bashrc", "a.html", "jsonl", "a.jsonl\0.py", "con"):
        assert page.post("/dataset/upload", files={"file": (name, row)}).status_code in (400, 422), name
    empty = page.post("/dataset/upload", files={"file": ("empty.jsonl", b"")})
    assert empty.status_code == 422 and "The file is empty" in empty.text
    assert len(files_under(page.outputs)) == 3


def test_more_requests_than_permitted_are_refused_and_the_page_goes_on(page: Page) -> None:
    now = 0.0
    page.guard.requests = RateLimit(BURST / 10, PER_S / 10, lambda: now)
    statuses: list[int] = []
    for _ in range(4):  # 20 a second for two seconds: a tenth of 200
        statuses += [page.get("/static/none").status_code for _ in range(10)]
        now += 0.5
    permitted = BURST / 10 + 1.5 * PER_S / 10
    assert statuses.count(404) == pytest.approx(permitted, abs=1) and set(statuses) == {404, 429}
    page.guard.requests = RateLimit(1, 0.1, lambda: now)
    page.get("/runs")
    assert page.get("/runs").headers["retry-after"] == "10"
    now += 10
    assert page.get("/runs").status_code == 200


# --- What a browser may do with an answer. ---
def test_every_answer_has_the_headers_that_bind_a_browser(page: Page) -> None:
    answers = [page.get(path) for path in [*GETS, "/static/page.css", "/static/none"]]
    answers += [
        page.get("/runs", headers={"host": "evil.example"}),
        page.post("/train"),
        page.post("/train", {"csrf": ""}),
    ]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, answer.request.url
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    page.client.cookies.clear()
    cookie = page.get("/runs").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_pages_have_no_script_or_style_of_their_own_and_load_nothing_from_elsewhere(page: Page) -> None:
    for path in GETS:
        text = page.get(path).text
        assert not re.search(
            r"<script(?![^>]*(src=|application/json))|<style|\son\w+=|\sstyle=|javascript:", text
        )
        assert not re.search(r'(src|href|action)="(?!/|#)', text), path
