"""Questions of general knowledge with short answers: what a training on something else should not cost.

They are no benchmark. A base model gives these answers a high probability, and a tuned one that has forgotten
how to answer ordinary questions does not.
"""

from __future__ import annotations

from typing import Any

from ..config.specs import DataGroup
from ..data.formats.recognise import recognise
from ..data.readers.rows import RowError
from ..data.tokens.encode import Encoder
from ..data.tokens.example import Example
from ..errors import ChatTemplateError

QUESTIONS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days are in a week?", "There are seven days in a week."),
    ("What do bees make?", "Bees make honey."),
    ("What is 12 plus 7?", "12 plus 7 is 19."),
    ("Which planet is known for its rings?", "Saturn is known for its rings."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("Name the largest ocean.", "The Pacific Ocean is the largest ocean."),
    ("What is the past tense of go?", "The past tense of go is went."),
    ("Why do we see lightning before we hear thunder?", "Because light travels faster than sound."),
    ("What gas do plants take in?", "Plants take in carbon dioxide."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("Translate thank you into Spanish.", "Thank you in Spanish is gracias."),
    ("What is the square root of 81?", "The square root of 81 is 9."),
    ("Which organ pumps blood through the body?", "The heart pumps blood through the body."),
    ("What comes after Thursday?", "Friday comes after Thursday."),
    ("Give a word that means the same as big.", "Large means the same as big."),
    ("What is H2O?", "H2O is the chemical formula of water."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("What is half of 50?", "Half of 50 is 25."),
    ("Which animal barks?", "A dog barks."),
    ("What do you use to cut paper?", "You use scissors to cut paper."),
    ("What is the color of the sky on a clear day?", "The sky is blue on a clear day."),
    ("Is a whale a fish?", "No, a whale is a mammal."),
)


def general_examples(tokenizer: Any) -> list[Example]:
    """The questions and answers in the form that the model is trained in; none if it allows no exact mask."""
    try:
        rows = [recognise({"prompt": question, "completion": answer}) for question, answer in QUESTIONS]
        encoder = Encoder(tokenizer, DataGroup())  # one: each copies the vocabulary
        encoded = encoder.tokenise([encoder.render(row) for row in rows])
    except (ChatTemplateError, RowError):
        return []
    return [example for one in encoded for example in one.examples]
