"""Passwords, keys and tokens that a name gives away: `DB_PASSWORD=…`, `"api_key": "…"`, `client_secret: …`.

Code and prose are full of such names beside values that are no secrets, so the name decides which values
count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HINTS = ("passw", "passp", "pwd", "secret", "token", "key", "credential")

ASSIGNMENT = re.compile(
    r"""(?P<word>(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|key)[\w-]{0,40}+)
        \\?["']?(?P<sign>[ \t]{0,8}(?:=>|:=|[=:])(?![=:])[ \t]{0,8})
        (?:\\?(?P<quote>["'`]))?
        (?=(?P<value>[^\s"'`&,;\\]{4,512}))""",
    re.VERBOSE | re.IGNORECASE,
)
"""The value is only looked at, so that what it contains is searched as well."""
REST = re.compile(r"[^\s\"'`&,;\\]*+")
IN_QUOTES = re.compile(r"[^\"'`\n\\]*+")

PASSWORD = re.compile(r"passw(?:or)?d|passphrase|pwd", re.IGNORECASE)
STRONG = re.compile(
    r"""passw(?:or)?d | passphrase | pwd$ | secret(?!ar) | credential | ^token$
      | (?:api|access|account|private|auth|client|signing|encryption|master|service|admin|ssh|license)_?key$
      | (?:access|auth|api|bearer|refresh|session|bot|user|personal|deploy|webhook)_?token$""",
    re.VERBOSE | re.IGNORECASE,
)
ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|PWD)(?:_[A-Z0-9]+)?")
WEAK = re.compile(r"_(?:key|token)$|[a-z](?:Key|Token)$")
HARMLESS = re.compile(
    r"""(?:^|_)(?: eos|bos|pad|unk|sep|cls|mask|eot|eom|boi|eoi|image|video|audio|special|stop|start|end
      | next|last|first|per|num|max|min|new|n | request|primary|foreign|public|publishable|sort|cache
      | partition|hash|group|join|index|unique|shard|row|object|message|event|routing|idempotency|tokens
      | translation)_(?:key|token)$""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words of machine learning and databases."""

NO_SECRET = re.compile(
    r"""none|null|true|false|undefined|nil|str|string|bytes|int|float|bool|any|optional|object|text|char
      | varchar|required|input|value|process|self|this|env|environment|hidden|redacted|changed
      | password|passwd|passphrase|pwd|secret|token|key|api_?key|credentials?
      | (?:your|my|the|some|a|an)[_-].* | x+ | \*+ | \.+""",
    re.VERBOSE | re.IGNORECASE,
)
CODE = re.compile(r"[(\[{<$%]|.*[(\[{]|(?:[A-Za-z_]\w*\.)+[A-Za-z_]+\W*$")
"""Starts as a placeholder, or is a call, an index, an attribute."""
PLAIN_WORD = re.compile(r"[A-Za-z_'’-]+[.!?:)\]}]*")  # noqa: RUF001
LONG = 12
DIGITS = 8
"""Fewer are a count: `max_token: 4096`."""
LONGEST_NAME = 64
NO_NAME = re.compile(r"[^\w-]")


def assigned_secrets(text: str, lower: str) -> Iterator[tuple[int, int, bool]]:
    """Start and end of each value that is probably a secret, and whether it can hardly be anything else.

    Args:
        lower: the text in lower case.
    """
    if not any(hint in lower for hint in HINTS):
        return
    hidden_to = 0
    for hit in ASSIGNMENT.finditer(text):
        start = hit.start("value")
        if start < hidden_to or not _is_secret(hit, text):
            continue
        hidden_to = _whole(hit, text)
        yield start, hidden_to, _looks_random(hit["value"])


def _name(hit: re.Match[str], text: str) -> str:
    """The whole name, with '_' for '-'."""
    before = text[max(0, hit.start() - LONGEST_NAME) : hit.start()]
    return (NO_NAME.split(before)[-1] + hit["word"]).replace("-", "_")


def _is_secret(hit: re.Match[str], text: str) -> bool:
    name, value = _name(hit, text), hit["value"]
    bare = value.rstrip(".!?:)]}")
    if NO_SECRET.fullmatch(bare) or CODE.match(value) or HARMLESS.search(name):
        return False
    if PASSWORD.search(name):
        return not _is_code_or_prose(hit, text) or ":" in hit["sign"]
    if bare.isdigit() and len(bare) < DIGITS:
        return False
    if STRONG.search(name) or ENVIRONMENT.fullmatch(name):
        return not _is_code_or_prose(hit, text)
    return bool(WEAK.search(name)) and _looks_random(value)


def _is_code_or_prose(hit: re.Match[str], text: str) -> bool:
    """Whether the value is a word of a sentence, or a variable: `token = line`."""
    if not PLAIN_WORD.fullmatch(hit["value"]):
        return False
    if hit["quote"]:
        return text[hit.end("value") : hit.end("value") + 1].isspace()
    return hit["sign"].strip() != hit["sign"] or ":" in hit["sign"]


def _looks_random(value: str) -> bool:
    return len(value) >= LONG and any(map(str.isdigit, value)) and any(map(str.isalpha, value))


def _whole(hit: re.Match[str], text: str) -> int:
    """Where the secret ends: at the closing quote, or at the end of the word."""
    rest = IN_QUOTES if hit["quote"] and PASSWORD.search(hit["word"]) else REST
    found = rest.match(text, hit.start("value"))
    return found.end() if found else hit.end("value")
