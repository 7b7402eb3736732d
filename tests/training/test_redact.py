"""Secrets stay out of what is shown and written."""

from __future__ import annotations

import pytest

from backpropagate.training.redact import looks_secret, scrub

SECRETS = [
    "hf_" + "aB3" * 10,
    "hf_oauth_" + "eyJhbGciOi.J9-x_" * 2,
    "https://bucket/object?X-Amz-Credential=AKxyz%2F2026&X-Amz-Signature=0123456789abcdef",
    "sk-ant-" + "x9" * 12,
    "AKIA" + "ABCD1234" * 2,
    "Authorization: Bearer abcdef1234567890",
    "password=hunter2222",
    "api_key: 'abcd-efgh'",
    "token=deadbeef",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_hidden(secret: str) -> None:
    shown = scrub(f"before {secret} after")
    assert "[hidden]" in shown and secret not in shown
    assert shown.startswith("before ") and shown.endswith("after")


def test_ordinary_text_is_left_alone() -> None:
    text = "1,204 tokens/s, tokenizer=loaded 200 rows; the secretary's password policy"
    assert scrub(text) == text


def test_only_what_is_surely_a_token_is_refused_in_arguments() -> None:
    assert looks_secret("model hf_" + "a" * 30)
    assert not looks_secret("What is the password policy? password: see the wiki")
