"""Conversion between `leptond.v1` messages and our own values."""
