"""Tokens, keys and passwords of all common kinds are known everywhere; ordinary prose and code are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpropagate.training.data.cleaning.private_data import hide, secrets_in
from backpropagate.training.data.cleaning.untrusted_text import safe_line
from backpropagate.training.errors import InputError
from backpropagate.training.redact import looks_secret, scrub
from backpropagate.training.requests.validated import validated
from backpropagate.training.secret_patterns import CERTAIN

MIXED = "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cD1fG3hJ5"
DIGITS = "1234567890"
KEY_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"

TOKENS = {
    "Hugging Face": f"hf_{MIXED[:34]}",
    "OpenAI": f"sk-proj-{MIXED}",
    "Anthropic": f"sk-ant-api03-{MIXED}",
    "AWS": "AKIA" + "ABCD1234" * 2,
    "Google API": f"AIza{MIXED[:35]}",
    "Google OAuth client": f"GOCSPX-{MIXED[:28]}",
    "Google OAuth": f"ya29.{MIXED}",
    "GitHub": f"ghp_{MIXED}",
    "GitHub fine-grained": f"github_pat_11{MIXED[:20]}_{MIXED}",
    "GitLab": f"glpat-{MIXED[:20]}",
    "GitLab runner": f"glrt-{MIXED[:20]}",
    "Slack bot": f"xoxb-{DIGITS}-{DIGITS}-{MIXED[:24]}",
    "Slack app": f"xapp-1-A{DIGITS}-{DIGITS}-{MIXED.lower()}",
    "Slack hook": f"https://hooks.slack.com/services/T00000000/B00000000/{MIXED[:24]}",
    "Stripe": f"sk_live_{MIXED[:24]}",
    "Stripe restricted": f"rk_test_{MIXED[:24]}",
    "npm": f"npm_{MIXED}",
    "JWT": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{MIXED}",
    "PEM": f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}\n-----END RSA PRIVATE KEY-----",
    "OpenSSH": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY_BODY}\n-----END OPENSSH PRIVATE KEY-----",
    "PEM without an end": f"-----BEGIN PRIVATE KEY-----\n{KEY_BODY}",
    "address": "postgres://admin:s3cr3t-pw@db.example.org/main",
    "environment key": f"STRIPE_API_KEY={MIXED}",
    "environment token": f"export CI_JOB_TOKEN={MIXED}",
    "any key": f"my_service_key = '{MIXED}'",
    "client secret": f'"client_secret": "{MIXED}"',
    "secret key base": f"secret_key_base: {MIXED}",
    "AWS secret": f"aws_secret_access_key = {MIXED}",
    "header": f"X-Api-Key: {MIXED}",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_secret_is_found_in_data_hidden_in_previews_and_logs_and_refused_in_arguments(kind: str) -> None:
    secret = TOKENS[kind]
    text = f"Use this: {secret} please"
    value = KEY_BODY if "PRIVATE KEY" in secret else "s3cr3t-pw" if kind == "address" else secret[-16:]
    assert secrets_in(text) and looks_secret(text)
    assert all(value not in shown and "[hidden]" in shown for shown in (scrub(text), hide(text)))
    assert value not in safe_line(text, 1000)
    with pytest.raises(InputError, match="looks like a secret"):
        from backpropagate.training.config.specs import RegisterSpec

        validated(RegisterSpec, {"gguf": "/m.gguf", "name": "m", "question": text})


@pytest.mark.parametrize(
    "text, shown",
    [
        (
            "git clone https://jo:hunter22@git.example.org/r.git",
            "git clone https://jo:[hidden]@git.example.org/r.git",
        ),
        ("password: swordfish", "password: [hidden]"),
        ('{"password": "correct horse battery"}', '{"password": "[hidden]"}'),
        ('{\\"token\\": \\"deadbeef99\\"}', '{\\"token\\": \\"[hidden]\\"}'),
        ("?user=jo&token=deadbeef99&x=1", "?user=jo&token=[hidden]&x=1"),
        ("DB_PASSWORD=hunter22\nPORT=8080", "DB_PASSWORD=[hidden]\nPORT=8080"),
        ("url=https://example.org/?api_key=abcdef12", "url=https://example.org/?api_key=[hidden]"),
    ],
)
def test_only_the_secret_itself_is_hidden(text: str, shown: str) -> None:
    assert scrub(text) == shown
    assert scrub(shown) == shown


ORDINARY = [
    "The key to success is a secret. Keep the token of friendship; the password policy is in the handbook.",
    "The standard bearer certificate was handed over. Bearer instruments are transferable.",
    "The secret: never give up. Her secret = patience.",
    "1,204 tokens/s, tokenizer=loaded 200 rows; max_new_tokens=64, num_tokens: 4096",
    'eos_token="<|im_end|>", "pad_token": "<|reserved_special_token_250|>", bos_token=<s>',
    '{"eos_token_id": 151645, "token_type_ids": [0, 0], "key": "value", "primary_key": "customer_id_2024x"}',
    "token = tokenizer(text)\nkey = row['id']\nfor key in table: print(key, table[key])",
    "def login(user: str, password: str, token: str | None = None) -> bool:",
    "client = Client(api_key=os.environ['API_KEY'], token=token, secret=settings.secret)",
    "password = getpass(); secret = None; api_key = <YOUR_API_KEY>; api_key: your_api_key_here",
    "See https://example.org:8080/path@v2 or git@github.com:me/repo.git, mailto:jo@example.org",
    "OLLAMA_HOST=https://user:password@host, ssh://user@host:22/x, redis://localhost:6379/0",
    "risk-averse-investors-of-2024, task-management-system-2, a monkey: banana123, keyboard: qwerty12345678",
    "request_key='tickets-2024-run-17', sort_key=created_at_2024, tokens_key: 0123456789abcdef",
    "npm_config_registry, gl-matrix-library-of-webgl-3, sk-learn-is-a-machine-learning-library",
    "assert token == other_token1234567 and key != known_key_1234567",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_prose_and_code_hold_no_secret(text: str) -> None:
    assert secrets_in(text) == set() and scrub(text) == text and not looks_secret(text)


PIECES = sorted(
    {hint for pattern in CERTAIN for hint in pattern.hints}
    | {
        "password",
        "token=",
        "secret_",
        "key: ",
        "-----BEGIN PRIVATE KEY-----",
        "-----",
        "eyJ",
        "AIza",
        "xoxb-",
    }
    | {
        "hf_",
        "sk-",
        "a",
        "A1",
        "9",
        "_",
        "-",
        ".",
        " ",
        "\n",
        "=",
        ":",
        '"',
        "\\",
        "@",
        "/",
        "?sig=",
        "Bearer ",
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.sampled_from(PIECES))
def test_long_repetitive_text_is_searched_in_linear_time(unit: list[str], start: str) -> None:
    """A pattern that is quadratic would take hours on one of these."""
    text = start + "".join(unit) * (100_000 // sum(map(len, unit)))
    assert "[hidden]" in scrub(text) or scrub(text) == text
