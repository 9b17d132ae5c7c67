"""Plug-in: decoders and tensor models on ONNX Runtime, with continuous batching of our own."""

__version__ = "0.1.0"
