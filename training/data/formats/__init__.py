"""From a raw row to a conversation, a completion, a text or a preference pair."""
