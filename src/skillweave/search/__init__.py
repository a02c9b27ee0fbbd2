"""Search: embed the samples of a run once, then find them by text or by file."""
