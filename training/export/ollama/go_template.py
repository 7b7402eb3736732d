"""Chat templates in Go's template language, for Ollama servers that do not run a GGUF's Jinja template."""

from __future__ import annotations

import json

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
