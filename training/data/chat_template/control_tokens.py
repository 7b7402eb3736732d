"""Control tokens of chat templates inside a row's text: template injection, accidental or intended."""

from __future__ import annotations

import re

KNOWN = re.compile(
    r"""<\|(?:im_start|im_end|im_sep|endoftext|begin_of_text|end_of_text|start_header_id|end_header_id|eot_id
          |eom_id|python_tag|system|user|assistant|end|eot|header_start|header_end|start_of_role|end_of_role
          |START_OF_TURN_TOKEN|END_OF_TURN_TOKEN|fim_prefix|fim_middle|fim_suffix)\|>
      | <(?:start_of_turn|end_of_turn|bos|eos)>
      | \[/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]
      | <</?SYS>>
      | <\uff5c[^<>\uff5c]{1,40}\uff5c>
    """,
    re.VERBOSE,
)
"""Control tokens of the main model families."""


def control_tokens(of_tokenizer: frozenset[str] | set[str] = frozenset()) -> re.Pattern[str]:
    """A pattern that matches the known control tokens and those of a tokenizer.

    Tokens of a tokenizer that also occur in ordinary text (`<s>`, `\\n\\n`, `<think>`) are excluded.
    """
    own = [
        token for token in of_tokenizer if re.fullmatch(r"<\W.+\W>|\[[A-Z_/]+\]|<[a-z]+(_[a-z]+)+>", token)
    ]
    longest = sorted(own, key=len, reverse=True)
    pattern = "|".join([KNOWN.pattern, *map(_verbose, longest)])
    return re.compile(pattern, re.VERBOSE)


def _verbose(token: str) -> str:
    return re.escape(token).replace("#", "\\#")
