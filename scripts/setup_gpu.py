"""Fetches what `--execution-provider cuda` needs besides the driver, from PyPI, pinned by version and sha256:

    .runtime/gpu/        ONNX Runtime with the CUDA provider, and the libraries of NVIDIA that it is linked to

The folders are those of pip: ORT_DYLIB_PATH=.runtime/gpu/onnxruntime/capi. setup.py puts the parts in place.
"""

import hashlib
import platform
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup  # noqa: E402

REQUIREMENTS = setup.SCRIPTS / "gpu-requirements.txt"

# The tags of the wheels. Those of NVIDIA are for any Python, and that of ONNX Runtime is taken for its libraries alone.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
PYTHON = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none", "--abi", "abi3")


class Wheels:
    """All wheels together."""

    def __init__(self):
        self.sha256 = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()

    def __str__(self):
        return REQUIREMENTS.name


def make_gpu(staging, made):
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise setup.SetupError(
            "the pinned libraries for NVIDIA GPUs are for Linux on x86_64; this is %s on %s.\n"
            "Install onnxruntime-gpu and its libraries yourself, see docs/models.md"
            % (platform.system(), platform.machine())
        )
    setup.say("  fetching ONNX Runtime for GPUs and the libraries of NVIDIA (1.4 GB)")
    options = PYTHON + tuple(word for tag in PLATFORMS for word in ("--platform", tag))
    for wheel in setup.pip_download(REQUIREMENTS.read_text(), staging / "wheels", options):
        setup.unzip(wheel, made)
        wheel.unlink()
    leave_out(made)


def leave_out(made):
    """Removes what serves only to compile programs, or Python."""
    for folder in ("include", "bin", "cmake", "pkgconfig", "nvvm"):
        for found in list(made.glob("nvidia/*/" + folder)) + list(made.glob("nvidia/*/lib/" + folder)):
            shutil.rmtree(str(found))
    for pattern in ("**/*.a", "**/*.py", "onnxruntime/capi/onnxruntime_pybind11_state*"):
        for found in made.glob(pattern):
            found.unlink()


PARTS = (setup.Part("ONNX Runtime for NVIDIA GPUs", "gpu", Wheels(), make_gpu),)

if __name__ == "__main__":
    setup.main(setup.PARTS + PARTS)
