"""How fast the ONNX Runtime engine is by itself, and where a step's time goes."""
