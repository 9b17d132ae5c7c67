"""Perplexity of each precision of a model on texts of our own, by every kernel that serves it."""
