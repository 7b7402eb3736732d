"""OLLAMA_HOST means what it means to Ollama."""

from __future__ import annotations

import pytest

from backpropagate.training.errors import OllamaError
from backpropagate.training.export.ollama.address import ollama_address


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:1234/", "https://example.com:1234"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("https://example.com/a/b/", "https://example.com:443/a/b"),
        ("ollama.com", "https://ollama.com:443"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::]", "http://[::1]:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0", "http://127.0.0.1:80"),
        ("example.com:99999", "http://example.com:11434"),
        ("example.com:many", "http://example.com:11434"),
        ("https://example.com:", "https://example.com:443"),
        (" \"example.com:1234' ", "http://example.com:1234"),
    ],
)
def test_every_form_is_read_as_ollama_reads_it(given: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address().url == url


def test_user_and_password_are_used_and_never_shown() -> None:
    address = ollama_address("https://me:p%40ss@example.com:1234/ollama")
    assert address.user_info == ("me", "p@ss")
    assert address.url == str(address) == "https://example.com:1234/ollama"
    assert "p@ss" not in repr(address) and "p%40ss" not in repr(address)


@pytest.mark.parametrize("given", ["ftp://example.com", "unix:///run/ollama.sock"])
def test_what_is_not_http_is_refused(given: str) -> None:
    with pytest.raises(OllamaError, match="not HTTP"):
        ollama_address(given)


@pytest.mark.parametrize(
    ("given", "local"),
    [("", True), ("localhost", True), ("[::1]", True), ("127.0.1.1", True), ("192.168.0.2", False)],
)
def test_this_machine_is_known(given: str, local: bool) -> None:
    assert ollama_address(given).is_local is local
