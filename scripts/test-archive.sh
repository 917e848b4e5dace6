#!/usr/bin/env bash
# Unpacks the archive of target/dist as an ordinary user, runs the daemon from there against a PostgreSQL of its own, and
# searches. As root, which it needs to be others.
#
# Needs a PostgreSQL server (apt-get install postgresql) and the model in .runtime (make setup).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/release_test.sh

home=$work/home
finish() {
    status=$?
    if [ $status -ne 0 ]; then cat "$home/daemon.log" 2>/dev/null || true; fi
    [ -z "${daemon:-}" ] || pkill --signal TERM --parent "$daemon" || true
    stop_postgres
    rm -rf "$work"
    exit $status
}
trap finish EXIT

# Nothing but what is in the archive: no cargo, no checkout, no variables.
as_user() {
    runuser -u nobody -- env --ignore-environment --chdir="$home" HOME="$home" PATH=/usr/bin:/bin LANTERN_OFFLINE=1 "$@"
}

say "unpack"
(cd target/dist && sha256sum --check SHA256SUMS)
install --directory --owner=nobody --mode=0700 "$home"
as_user tar --extract --gzip <"$(echo target/dist/lantern-cli-*.tar.gz)"
folder=$(basename target/dist/lantern-cli-*.tar.gz .tar.gz)
program=$home/$folder/bin/lantern-cli
as_user "$program" --version
for file in README.md INSTALL.md LICENSE docs/getting-started.md docs/licenses/rust-packages.txt sql/jobs.sql \
    etc/lantern.service; do
    [ -s "$home/$folder/$file" ] || fail "$file is missing"
done

say "run"
password=$(random_password)
start_postgres
prepare_database "$program" "$password"
as_user mkdir -p ".local/share/lantern-cli/models/${model%/*}"
tar --create --directory=".runtime/models/${model%/*}" "${model#*/}" |
    as_user tar --extract --directory=".local/share/lantern-cli/models/${model%/*}"
as_user sh -c "umask 077; echo '127.0.0.1:$port:postgres:lantern:$password' > .pgpass"
uri=postgresql://lantern@127.0.0.1:$port/postgres
as_user "$program" start-daemon --uri "$uri" --refuse-superuser >"$home/daemon.log" 2>&1 &
daemon=$!
eventually 2 sql --command='SELECT count(title_embedding) FROM articles'
as_user "$program" wait --uri "$uri" --job 1
as_user "$program" search --uri "$uri" --job 1 --limit 1 'what causes the tides?' | tee "$work/found"
grep --quiet moon "$work/found" || fail "the nearest text is another one"
say "all is well"
