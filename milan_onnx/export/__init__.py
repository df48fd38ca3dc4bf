"""Training in PyTorch and export to ONNX. Needs the ``export`` extra; the runtime does not."""
