"""From a raw row to a conversation, a completion, a text or a preference pair.

A new row format: its name in `messages.FormatName`, a function and a case in `recognise.recognise` (with a
line in its table), and a section with examples in docs/data-formats.md.
"""
