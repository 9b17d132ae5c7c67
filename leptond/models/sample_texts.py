"""Texts that encoders are measured with: our own words, short and longer ones."""

from __future__ import annotations

__all__ = ["SAMPLE_TEXTS"]

_SENTENCES = (
    "The ferry leaves the island at seven and comes back before dark.",
    "Which trains run on Sunday?",
    "A good knife needs a stone, a little water and some patience.",
    "The committee has postponed its decision on the new bridge until the spring.",
    "Rain again.",
    "To reset the router, hold the button for ten seconds and wait until the light is green.",
    "Her grandmother kept bees behind the house and sold the honey in jars without a label.",
    "How do I cancel an order that was already shipped?",
    "Sea water freezes at a lower temperature than fresh water because of the salt in it.",
    "The second movement is slower, and the oboe takes over the theme from the strings.",
    "Invoices are due within thirty days; after that a reminder is sent.",
    "Nobody in the village remembered who had planted the three lime trees.",
    "The function returns an empty list when no record matches the query.",
    "Bake the dough on the lowest shelf until the crust sounds hollow.",
    "Patients with a fever should drink plenty and see a doctor on the third day.",
    "He scored twice in the last five minutes, and the stadium did not stop singing for an hour.",
)
_LONGER = tuple(
    " ".join(_SENTENCES[(first + step) % len(_SENTENCES)] for step in range(2 + first % 7))
    for first in range(len(_SENTENCES))
)

SAMPLE_TEXTS = _SENTENCES + _LONGER
"""32 texts: of 2 to about 140 tokens."""
