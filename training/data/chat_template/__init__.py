"""From a conversation to rendered text, and which of its characters the assistant wrote."""
