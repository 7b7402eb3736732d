"""Texts on which a model is run where no training gives any rows."""

from __future__ import annotations

from ..gguf.export import GgufRequest
from ..held_out_rows import RunRows
from ..tokenizer.folder import TokenizerFolder

TEXTS = (
    "The ferry leaves at half past six, and the last bus to the harbour is the one before it. If it rains, "
    "take the path behind the church: the road by the river is closed until the bridge has been mended.",
    "Question: Why does bread rise?\nAnswer: Yeast eats the sugar in the dough and gives off a gas. The gas "
    "stays in the dough in small bubbles, so it grows. In the oven the bubbles grow once more, and then set.",
    "def mean(values: list[float]) -> float:\n    if not values:\n        raise ValueError('no values')\n"
    "    return sum(values) / len(values)\n\n\nprint(mean([1.5, 2.5, 4.0]))\n",
    '{"order": 20417, "items": [{"name": "lamp", "count": 2, "price": 34.9}], "paid": true, "note": null}',
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89. Each number is the sum of the two before it, so the next is 144.",
    "Dear Mrs Okafor,\n\nthank you for your letter of 3 May. We have sent the missing part today; it should "
    "arrive within four days. Please keep the old one until then.\n\nKind regards\nThe service team",
    "# Notes\n\n- Water boils at 100 °C at sea level.\n- On a mountain it boils earlier.\n\n**So** an egg "
    "needs more time there.",
    "Der Zug nach Norden hat heute zwanzig Minuten Verspätung. Bitte achten Sie auf die Durchsagen am Gleis.",
    "La biblioteca abre a las nueve y cierra a las ocho; los sábados, sólo por la mañana.",
    "SELECT city, COUNT(*) AS visits FROM trips WHERE year >= 2019 GROUP BY city ORDER BY visits DESC;",
    "She counted the steps in the dark: eleven, twelve, thirteen. Then a door opened, and somebody laughed. "
    '"You are late," said a voice. "I know," she said, "but I have brought the map."',
    "Total = 3 * (14 + 6) - 12 / 4 = 57",
)


def sample_rows(request: GgufRequest) -> RunRows:
    """A dozen rows of token ids, with the model's own tokenizer."""
    tokenizer = TokenizerFolder(request.tokenizer_folder, request.base).tokenizer
    return RunRows("sample texts", [tokenizer.encode(text).ids for text in TEXTS])
