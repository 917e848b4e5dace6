"""Prints the licenses of the crates that are linked into lantern-cli, as their packages contain them.

    scripts/third_party_licenses.py > THIRD-PARTY-LICENSES.txt

Crates are those that cargo resolves for this machine with the default features, without the ones that only build or test.
Equal texts are printed once, below the names of all crates that have them. A crate without a license file is listed with its
license expression: its text is one of those below.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

NAMES = ("license", "licence", "copying", "notice", "unlicense")


def metadata():
    target = "%s-unknown-linux-gnu" % platform.machine()
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(metadata):
    """The ids of the packages below lantern-cli by normal dependencies."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    (root,) = [package["id"] for package in metadata["packages"] if package["name"] == "lantern-cli"]
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        for dependency in nodes[package]["deps"]:
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if is_linked and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return found - {root}


def texts(package):
    folder = Path(package["manifest_path"]).parent
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name.lower().startswith(NAMES))
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def main():
    described = metadata()
    ids = linked(described)
    packages = sorted(
        (package for package in described["packages"] if package["id"] in ids),
        key=lambda package: (package["name"], package["version"]),
    )
    holders = {}
    print("lantern-cli contains these packages:\n")
    for package in packages:
        print("%s %s (%s)" % (package["name"], package["version"], package["license"]))
        for text in texts(package):
            holders.setdefault(text, []).append(package["name"])
    for text, names in holders.items():
        print("\n" + "=" * 80 + "\n" + ", ".join(sorted(set(names))) + "\n" + "=" * 80 + "\n")
        print(text)


if __name__ == "__main__":
    sys.exit(main())
