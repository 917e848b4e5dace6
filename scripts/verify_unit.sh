#!/usr/bin/env bash
# Lets systemd read the unit, and rates how exposed the service is: at most 1.5 of 10.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT

# Neither the program nor the account need be there.
sed 's#/usr/bin/lantern-cli#/bin/true#' packaging/systemd/lantern.service >"$root/lantern.service"
said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$root/lantern.service" 2>&1 |
    grep --fixed-strings lantern || true)
if [ -n "$said" ]; then
    echo "$said" >&2
    exit 1
fi
systemd-analyze security --no-pager --offline=yes --threshold=15 "$root/lantern.service" | tail -n 1
