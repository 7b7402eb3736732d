"""From a conversation to text, and which of its characters the assistant wrote."""
