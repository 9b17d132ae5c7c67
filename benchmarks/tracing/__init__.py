"""What tracing costs: tokens per second with a collector that listens, and with tracing off."""
