"""Vector indexes, and search in them."""
