"""Which rows are used, which are held out, and in which order."""
