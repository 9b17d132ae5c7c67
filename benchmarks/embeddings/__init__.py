"""Texts per second: through gRPC, of the raw library, and of a rival."""
