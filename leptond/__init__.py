"""The gRPC inference daemon. Imports nothing: a client loads `leptond.v1` and pays for no more."""
