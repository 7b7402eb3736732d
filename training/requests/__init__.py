"""From what was asked to a spec. What a name means is answered here."""
