"""Finds or hides probable secrets and personal data in text. Results name kinds, never values."""

from __future__ import annotations

import re

from ...redact import HIDDEN, scrub
from ...secret_patterns import found_secrets

EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}\b")
PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .-]?|\b0)(?:\(?\d{2,5}\)?[ ./-]?){2,4}\d{2,4}\b|\(\d{3}\) ?\d{3}-\d{4}\b"
)
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
SOCIAL = re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b")

PERSONAL: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail address", EMAIL),
    ("bank account", IBAN),
    ("card number", CARD),
    ("social security number", SOCIAL),
    ("phone number", PHONE),
)


def secrets_in(text: str) -> set[str]:
    """The kinds of probable secrets in the text."""
    return {found.kind for found in found_secrets(text)}


def personal_in(text: str) -> set[str]:
    """The kinds of probable personal data in the text."""
    if "@" not in text and not any(digit in text for digit in "0123456789"):
        return set()
    kinds: set[str] = set()
    for kind, pattern in PERSONAL:
        if any(_plausible(kind, hit) for hit in pattern.finditer(text)):
            kinds.add(kind)
            text = pattern.sub(" ", text)  # so that no part of it matches another kind
    return kinds


def hide(text: str) -> str:
    """The text with secrets and personal data replaced by `[hidden]`."""
    text = scrub(text)
    for kind, pattern in PERSONAL:
        text = pattern.sub(lambda hit, kind=kind: HIDDEN if _plausible(kind, hit) else hit[0], text)
    return text


def _plausible(kind: str, hit: re.Match[str]) -> bool:
    if kind == "card number":
        return _luhn(hit[0])
    if kind == "bank account":
        return _iban(hit[0])
    return True


def _luhn(number: str) -> bool:
    """Whether the check digit of a card number is valid (Luhn, ISO/IEC 7812)."""
    digits = [int(digit) for digit in number if digit.isdigit()][::-1]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _iban(number: str) -> bool:
    """Whether the check digits of an IBAN are valid (ISO 13616)."""
    compact = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1
