"""Measurements: alternating rounds, medians, ratios within one run, on an idle machine."""
