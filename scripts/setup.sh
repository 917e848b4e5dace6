#!/bin/sh
# Fetches what lantern-cli needs at run time into .runtime/. setup.py does the work; this file only reports which tools
# are missing, so it must not need any of them itself.
#
# An argument names the script to run instead of setup.py, for example setup_matrix.py.
#
# PYTHON names the Python to use, for example: PYTHON=python3.12 make setup
set -eu

python=${PYTHON:-python3}
missing=''

need() { # need COMMAND "what it is and how to get it"
    command -v "$1" >/dev/null 2>&1 || missing="$missing
  $1: $2"
}

need cargo "the Rust toolchain, from https://rustup.rs"
need cc "a C compiler (Debian, Ubuntu: apt install build-essential; Fedora: dnf install gcc)"
need make "make (Debian, Ubuntu: apt install build-essential; Fedora: dnf install make)"
need "$python" "Python 3 with pip (Debian, Ubuntu: apt install python3 python3-pip; Fedora: dnf install python3-pip)"

if [ -n "$missing" ]; then
    echo "setup: these tools are missing:$missing" >&2
    exit 1
fi

# -I -S: the user's Python environment is not needed, and a second run is faster without it.
exec "$python" -I -S "$(dirname "$0")/${1:-setup.py}"
