"""What a chat feels of a bulk embedding beside it."""
