"""Installs onnxruntime, onnx and numpy from PyPI into a virtual environment for `pponnx bench`.

    python3 tests/bench/install.py [DIR]

Without DIR: tests/bench/.venv beside this file. Elsewhere, tell `pponnx bench` with PPONNX_PYTHON=DIR/bin/python.
"""

import subprocess
import sys
import venv
from pathlib import Path


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / ".venv"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "onnxruntime", "onnx", "numpy"], check=True)
    subprocess.run([python, "-c", "import onnxruntime; print('onnxruntime', onnxruntime.__version__)"], check=True)


main()
