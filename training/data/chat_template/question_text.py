"""The last question in a rendered prompt, without the template's text around it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .render import render_chat
from .sandbox import template_errors
from .turn_markers import shared_prefix

QUESTION, ANSWER = "Question 81402057?", "Answer 9251#"
"""The answer ends as no system message of a template does: what precedes both is of the frame."""


class QuestionFrame(NamedTuple):
    """The text around the last user turn of a prompt; both empty if the template does not show it.

    Args:
        before: what is right before every question.
        after: what is between the question and its answer.
    """

    before: str = ""
    after: str = ""

    def question(self, prompt: str) -> str:
        """The last question of a rendered prompt; all of the prompt where the frame is not found."""
        text = prompt.removesuffix(self.after)
        return text.rpartition(self.before)[2].strip() if self.before else text.strip()


def question_frame(tokenizer: Any) -> QuestionFrame:
    """The frame that a tokenizer's chat template gives to questions."""
    if not tokenizer.chat_template:
        return QuestionFrame()
    asked, answered = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    try:
        first = render_chat(tokenizer, [asked], add_generation_prompt=True)
        later = render_chat(tokenizer, [asked, answered, asked], add_generation_prompt=True)
    except template_errors():  # it wants other turns than these
        return QuestionFrame()
    (before, found, after), (earlier, _, _) = first.rpartition(QUESTION), later.rpartition(QUESTION)
    shared = shared_prefix(before[::-1], earlier[::-1])
    return QuestionFrame(before[len(before) - shared :], after) if found else QuestionFrame()
