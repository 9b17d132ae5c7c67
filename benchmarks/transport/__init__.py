"""What gRPC costs: the daemon against its own engine in process, and against a bare servicer."""
