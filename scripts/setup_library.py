"""Fetches the ONNX Runtime library alone, for builds of packages and images, as setup.py does:

    .runtime/lib/        libonnxruntime.so, from the package onnxruntime
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup  # noqa: E402

if __name__ == "__main__":
    setup.main(tuple(part for part in setup.PARTS if part.wheel is setup.ONNXRUNTIME))
