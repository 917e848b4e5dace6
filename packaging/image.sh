#!/usr/bin/env bash
# Puts what an image needs besides glibc and libstdc++ below a folder: image.sh PROGRAM FOLDER
set -euo pipefail
program=$1 folder=$2
cd "$(dirname "$0")/.."

install --directory "$folder"/usr/{bin,lib/lantern-cli} "$folder/usr/share/doc/lantern-cli"
install --mode=755 --strip "$program" "$folder/usr/bin/lantern-cli"
install --mode=644 .runtime/lib/libonnxruntime.so "$folder/usr/lib/lantern-cli/"
install --mode=644 LICENSE .runtime/lib/onnxruntime-* "$folder/usr/share/doc/lantern-cli/"
python3 scripts/third_party_licenses.py >"$folder/usr/share/doc/lantern-cli/rust-packages.txt"
# The data path belongs to the account of the image; a volume takes its owner from here.
install --directory --owner=65532 --group=65532 --mode=750 "$folder/var/lib/lantern"
