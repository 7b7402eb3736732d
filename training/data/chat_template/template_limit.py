"""The error of a chat template that computes too much."""


class TemplateLimitError(ValueError):
    """A chat template needs more time or memory than any conversation does."""
