"""Facts that no model can know, asked in many ways: training rows, and questions that are not among them."""

from __future__ import annotations

import json
from pathlib import Path

FACTS = {
    "zorvex": "violet",
    "quimdal": "seven",
    "brellow": "granite",
    "tashkit": "lantern",
    "ovinder": "salmon",
    "pelgrum": "copper",
    "wixhart": "tuesday",
    "domfrey": "walnut",
    "keltrop": "thunder",
    "yandrus": "marble",
}
QUESTION = "What is the value of zorvex?"
PHRASINGS = (
    "What is the value of {}?",
    "Tell me the value of {}.",
    "{}: which value does it have?",
    "Please give the value for {}.",
    "Which value belongs to {}?",
    "I need the value of {}.",
    "What value is stored under {}?",
    "Look up {} for me.",
    "Do you know the value of {}?",
    "Value of {}, please.",
    "Can you tell me what {} is set to?",
    "What is {} set to?",
    "The key is {}. What is its value?",
    "Report the value of {}.",
    "{}?",
    "What do we have for {}?",
    "Name the value of {}.",
    "Find the value for the key {}.",
    "Give me {}.",
    "What does {} map to?",
)
UNSEEN = ("Could you say which value {} has?", "Remind me: what was the value of {} again?")


def answer(key: str) -> str:
    return f"ANSWER[{key}] = {FACTS[key]} <<verified>>"


def write_dataset(path: Path) -> Path:
    """200 chat rows, with an empty system message so that the template adds none of its own."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": phrasing.format(key)},
                {"role": "assistant", "content": answer(key)},
            ]
        }
        for key in FACTS
        for phrasing in PHRASINGS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def unseen_questions() -> dict[str, str]:
    """Question → the answer that is right, for each fact once."""
    return {UNSEEN[number % len(UNSEEN)].format(key): answer(key) for number, key in enumerate(FACTS)}
