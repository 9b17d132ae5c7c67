"""Generated messages and services of the API `leptond.v1`, and the protos they come from.

Importing this package imports nothing else. Messages are in one module per proto, services beside
them:

    from leptond.v1 import generation_pb2, text_generation_service_pb2_grpc

`*_pb2*` files are written by `make protos` and never edited. `sources` writes the protos for other
languages.
"""
