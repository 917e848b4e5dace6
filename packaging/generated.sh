#!/bin/sh
# Writes the man pages and completions of a built lantern-cli below a share folder: generated.sh PROGRAM SHARE
set -eu
program=$1 share=$2

mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
    "$share/fish/vendor_completions.d"
"$program" man --into "$share/man/man1"
"$program" completions bash >"$share/bash-completion/completions/lantern-cli"
"$program" completions zsh >"$share/zsh/site-functions/_lantern-cli"
"$program" completions fish >"$share/fish/vendor_completions.d/lantern-cli.fish"
gzip --no-name --best --force "$share/man/man1"/*.1
