"""A plug-in whose module raises while it is imported."""

raise ValueError("the plug-in is broken")
