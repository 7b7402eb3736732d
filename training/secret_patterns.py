"""What tokens, keys and passwords look like: one table for data findings, previews, arguments and logs.

Every pattern takes time in proportion to the text's length: it begins at a fixed word or where a run of
characters begins, and each repetition is bounded, possessive, or consumed by the match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .secret_assignments import assigned_secrets


class SecretPattern(NamedTuple):
    """One kind of secret.

    Args:
        hints: every match contains one of these in lower case; searching for them first is faster.
        pattern: the group `secret` is what is hidden, or the whole match if there is none.
    """

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


class FoundSecret(NamedTuple):
    """A probable secret at `start` to `end` of a text; `certain` if it can hardly be anything else."""

    kind: str
    start: int
    end: int
    certain: bool


def _token(kind: str, hints: str, pattern: str) -> SecretPattern:
    """The token must begin a run of letters, digits, '_' and '-'."""
    return SecretPattern(kind, tuple(hints.split()), re.compile(rf"(?<![\w-])(?:{pattern})"))


TOKEN, WEB_TOKEN, BEARER = "access token", "web token", "bearer token"

CERTAIN = (
    _token(TOKEN, "hf_ api_org_", r"(?:hf|api_org)_[A-Za-z0-9]{16,}+|hf_(?:oauth|jwt)_[\w.-]{16,}+"),
    _token(TOKEN, "sk-", r"sk-(?=[A-Za-z_-]*+\d)[\w-]{16,}+"),  # OpenAI, Anthropic
    _token(TOKEN, "gsk_ xai-", r"(?:gsk_|xai-)[A-Za-z0-9]{20,}+"),  # Groq, xAI
    _token(TOKEN, "akia asia", r"(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS
    _token(TOKEN, "aiza", r"AIza[\w-]{35}(?![\w-])"),  # Google API key
    _token(
        TOKEN, "gocspx- ya29. 1//0", r"GOCSPX-[\w-]{20,}+|ya29\.[\w-]{20,}+|1//0[\w-]{30,}+"
    ),  # Google OAuth
    _token(TOKEN, "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{20,}+"),  # GitHub
    _token(TOKEN, "github_pat_", r"github_pat_\w{22,}+"),  # GitHub, fine-grained
    _token(TOKEN, "gl", r"gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct)-[\w.-]{20,}+"),  # GitLab
    _token(
        TOKEN, "xox xapp-", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}+|xapp-\d-[A-Za-z0-9-]{10,}+"
    ),  # Slack
    _token(TOKEN, "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]{20,}+"),
    _token(
        TOKEN, "sk_ rk_ whsec_", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}+|whsec_[A-Za-z0-9+/=]{16,}+"
    ),  # Stripe
    _token(TOKEN, "npm_", r"npm_[A-Za-z0-9]{36,}+"),
    _token(TOKEN, "pypi-", r"pypi-[\w-]{50,}+"),
    _token(TOKEN, "sg.", r"SG\.[\w-]{16,}+\.[\w-]{16,}+"),  # SendGrid
    _token(
        TOKEN, "dop_v1_ dapi", r"(?:dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32})(?!\w)"
    ),  # DigitalOcean, Databricks
    _token(TOKEN, ":aa", r"\d{8,10}:AA[\w-]{33}(?![\w-])"),  # Telegram
    _token(WEB_TOKEN, "eyj", r"eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)*+"),
    SecretPattern(
        "private key",
        ("private key",),
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[A-Za-z0-9+/=\s\\:,]|-(?!----))*+"
            r"(?:-----END [A-Z0-9 ]{0,50}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
    ),
    SecretPattern(
        BEARER,
        ("bearer",),
        re.compile(
            r"\bBearer\s{1,8}(?=[A-Za-z._~+/=-]*+\d)(?P<secret>[A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE
        ),
    ),
    SecretPattern(
        BEARER,
        ("authorization",),
        re.compile(
            r"\bAuthorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?(?:Bearer|Basic|Token)\s{1,8}"
            r"(?P<secret>[A-Za-z0-9._~+/=-]{8,}+)",
            re.IGNORECASE,
        ),
    ),
    SecretPattern(
        "password in an address",
        ("://",),
        re.compile(
            r"://[^\s/:@\"'<>?#]{0,128}:"
            r"(?!(?:pass(?:word|wd)|pwd|secret|token|x+|\*+|\[hidden\]|\.+)@)"
            r"(?P<secret>[^\s/:@\"'<>${}][^\s/@\"'<>]{0,255})@",
            re.IGNORECASE,
        ),
    ),
    SecretPattern(
        "signed address",
        ("signature=", "credential=", "security-token=", "policy=", "sig="),
        re.compile(
            r"(?:\bX-(?:Amz|Goog)-|[?&])(?:Signature|Credential|Security-Token|Policy|sig)="
            r"(?P<secret>[^\s&\"'<>]{8,}+)",
            re.IGNORECASE,
        ),
    ),
)


def found_secrets(text: str) -> Iterator[FoundSecret]:
    """The probable secrets in a text; they may overlap, and are in no order."""
    lower = text.lower()
    for kind, hints, pattern in CERTAIN:
        if not any(hint in lower for hint in hints):
            continue
        group = "secret" if "secret" in pattern.groupindex else 0
        for hit in pattern.finditer(text):
            yield FoundSecret(kind, *hit.span(group), certain=True)
    for start, end, certain in assigned_secrets(text, lower):
        yield FoundSecret("password or key", start, end, certain)
