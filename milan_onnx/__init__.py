"""milan-onnx: natural language descriptions of the units of a vision network, without torch."""

__version__ = "0.1.0"
