"""TRL's trainer in its own loop."""
