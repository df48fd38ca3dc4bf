"""``python -m milan_onnx`` is the command ``milan-onnx``."""

from milan_onnx.cli import main

if __name__ == "__main__":
    main()
