"""Chat templates in Go's template language, for Ollama servers that do not run a GGUF's Jinja template."""

from __future__ import annotations

import json
import re

from .template_parts import TemplateParts

LAYOUT = """\
{{- $before := OPENING }}{{ $end := "" }}
{{- range .Messages }}
{{- if eq .Role "system" }}{{ BEFORE_SYSTEM }}{{ .Content }}{{ $before = AFTER_SYSTEM }}{{ $end = "" }}
{{- else if eq .Role "user" }}{{ $before }}{{ .Content }}{{ $before = ANSWER }}{{ $end = PROMPT }}
{{- else if eq .Role "assistant" }}{{ $before }}{{ .Content }}{{ $before = TURN }}{{ $end = "" }}
{{- end }}
{{- end }}{{ $end }}"""
"""`TemplateParts.text` in Go: what comes before the next text is carried along in a variable."""

ACTION = re.compile(r"\s*\{\{-.*?-\}\}\s*|\s*\{\{-.*?\}\}|\{\{.*?-\}\}\s*|\{\{.*?\}\}", re.DOTALL)
ROLE = re.compile(r"user|assistant|system")


def lays_out_as(shown: str, parts: TemplateParts) -> bool:
    """Whether a Go template's own text has all that stands between the messages, spaces and lines included.

    A role may be a word of the template or come from the message, so it is left out on both sides.
    """
    between = [parts.before_system, parts.after_system, parts.answer, parts.turn, parts.prompt]
    if not parts.default_system:
        between.append(parts.opening)
    text = ROLE.sub("", ACTION.sub("", shown))
    return all(piece in text for part in between for piece in ROLE.split(part))


def go_template(parts: TemplateParts) -> str:
    """The Go template (https://pkg.go.dev/text/template) that formats as a Jinja template does."""
    names = ("before_system", "after_system", "opening", "answer", "prompt", "turn")
    text = LAYOUT
    for name in names:
        text = text.replace(name.upper(), "\0" + name)
    for name in names:
        text = text.replace("\0" + name, _quoted(getattr(parts, name)))
    return text


def _quoted(text: str) -> str:
    """A Go string: JSON's escapes are Go's as well, as long as other characters stay as they are."""
    return json.dumps(text, ensure_ascii=False)
