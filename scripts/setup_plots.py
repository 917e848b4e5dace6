"""Fetches what `make bench` draws its plots with, pinned by version and sha256:

    .runtime/plots/      matplotlib and what it imports, from PyPI

setup.py puts the parts in place.
"""

import hashlib
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup  # noqa: E402

REQUIREMENTS = setup.SCRIPTS / "plots-requirements.txt"

# The Python versions for which it has wheels.
PYTHONS = ((3, 11), (3, 14))


class Wheels:
    """All wheels together; they differ between versions of Python."""

    def __init__(self):
        self.sha256 = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()

    def __str__(self):
        return "%s for Python %d.%d" % ((REQUIREMENTS.name,) + sys.version_info[:2])


def make_plots(staging, made):
    oldest, newest = PYTHONS
    if not (oldest <= sys.version_info[:2] <= newest and platform.python_implementation() == "CPython"):
        raise setup.SetupError(
            "drawing plots needs matplotlib, which is pinned for CPython %d.%d to %d.%d; this is %s %s.\n"
            "Choose another Python, for example: PYTHON=python3.12 make bench"
            % (oldest + newest + (platform.python_implementation(), platform.python_version()))
        )
    setup.say("  fetching matplotlib (40 MB)")
    for wheel in setup.pip_download(REQUIREMENTS.read_text(), staging / "wheels", ()):
        setup.unzip(wheel, made)
    setup.run(
        [sys.executable, "-S", "-c", "import matplotlib.pyplot"],
        "matplotlib does not run on this machine",
        environment={"PYTHONPATH": str(made), "PYTHONDONTWRITEBYTECODE": "1"},
    )


PARTS = (setup.Part("matplotlib", "plots", Wheels(), make_plots),)

if __name__ == "__main__":
    setup.main(setup.PARTS + PARTS)
