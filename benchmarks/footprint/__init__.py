"""How soon the daemon is ready, and whether its memory stays where it is."""
