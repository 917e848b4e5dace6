#!/usr/bin/env bash
# Installs the .deb of target/dist on this Debian, runs the daemon from it as its account against a PostgreSQL of its own, and
# removes it again. As root; changes the machine: for one that is thrown away, as in the workflow of releases.
#
# Needs a PostgreSQL server (apt-get install postgresql) and the model in .runtime (make setup). Where systemd runs, the
# service is started by it; elsewhere as the unit would start it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/release_test.sh

deb=$(echo target/dist/lantern-cli_*.deb)
has_systemd() { [ -d /run/systemd/system ]; }

finish() {
    status=$?
    if [ $status -ne 0 ]; then
        find /var/lib/lantern -maxdepth 3 || true
        { has_systemd && systemctl status --no-pager --lines=20 lantern; } || true
        cat "$work/daemon.log" 2>/dev/null || true
    fi
    stop_service >/dev/null 2>&1 || true
    dpkg --purge lantern-cli >/dev/null 2>&1 || true
    stop_postgres
    rm -rf "$work"
    exit $status
}
trap finish EXIT

start_service() {
    if has_systemd; then
        systemctl start lantern
        return
    fi
    # What the unit sets.
    install --owner=lantern --mode=0400 /etc/lantern/pgpass "$work/pgpass"
    local variables
    mapfile -t variables < <(grep --no-messages '^[A-Z]' /etc/lantern/environment)
    runuser -u lantern -- env --ignore-environment --chdir=/ "${variables[@]}" LANTERN_DATA_PATH=/var/lib/lantern \
        PGPASSFILE="$work/pgpass" /usr/bin/lantern-cli start-daemon --refuse-superuser >"$work/daemon.log" 2>&1 &
    daemon=$!
}

stop_service() {
    if has_systemd; then
        systemctl stop lantern
        return
    fi
    [ -n "${daemon:-}" ] || return 0
    pkill --signal TERM --parent "$daemon" || true
    wait "$daemon"
    daemon=''
}

say "install $deb"
dpkg --install "$deb"
expect lantern stat --format=%U /var/lib/lantern
expect 'root 600' stat --format='%U %a' /etc/lantern/pgpass
expect 'lantern 640' stat --format='%G %a' /etc/lantern/environment
lantern-cli --version
if has_systemd; then
    expect disabled systemctl is-enabled lantern
    expect inactive systemctl is-active lantern
    say "start it without a configuration"
    if systemctl start lantern; then fail "it starts without a jobs database"; fi
    eventually failed systemctl show --property=ActiveState --value lantern
    expect 78 systemctl show --property=ExecMainStatus --value lantern
    systemctl reset-failed lantern
fi

say "configure and start the service"
password=$(random_password)
start_postgres
prepare_database lantern-cli "$password"
echo "127.0.0.1:$port:postgres:lantern:$password" >>/etc/lantern/pgpass
cat >>/etc/lantern/environment <<END
LANTERN_URI=postgresql://lantern@127.0.0.1:$port/postgres
LANTERN_ALLOW_HOST=127.0.0.1:$port
LANTERN_LISTEN=127.0.0.1:54877
LANTERN_OFFLINE=1
END
install --directory --owner=lantern --group=lantern "/var/lib/lantern/models/${model%/*}"
cp -R ".runtime/models/$model" "/var/lib/lantern/models/$model"
chown -R lantern:lantern /var/lib/lantern/models
start_service
eventually 2 sql --command='SELECT count(title_embedding) FROM articles'
sql --command="INSERT INTO articles (title) VALUES ('How to fold a paper crane')"
eventually 3 sql --command='SELECT count(title_embedding) FROM articles'
lantern-cli healthcheck --listen 127.0.0.1:54877
eventually 'ready: 1 job at work' lantern-cli healthcheck --ready --listen 127.0.0.1:54877
if has_systemd; then
    eventually '1 job' systemctl show --property=StatusText --value lantern
    expect lantern ps --format user= --pid "$(systemctl show --property=MainPID --value lantern)"
    systemctl status --no-pager --lines=0 lantern
fi

say "search"
runuser -u lantern -- env PGPASSWORD="$password" lantern-cli search --data-path /var/lib/lantern --offline --job 1 \
    --limit 1 --uri "postgresql://lantern@127.0.0.1:$port/postgres" 'what causes the tides?' | tee "$work/found"
grep --quiet moon "$work/found" || fail "the nearest text is another one"

if has_systemd; then
    say "a daemon that hangs is started again"
    kill -STOP "$(systemctl show --property=MainPID --value lantern)"
    deadline=$((SECONDS + 90))
    until [ "$(systemctl show --property=NRestarts --value lantern)" = 1 ]; do
        [ $SECONDS -lt $deadline ] || fail "the watchdog does not act"
        sleep 1
    done
    eventually active systemctl is-active lantern
fi

say "stop, remove, purge"
stop_service
expect 3 sql --command='SELECT count(title_embedding) FROM articles'
dpkg --remove lantern-cli
[ -e /etc/lantern/environment ] || fail "the configuration is gone after a removal"
[ -d "/var/lib/lantern/models/$model" ] || fail "the models are gone after a removal"
dpkg --purge lantern-cli
[ ! -e /etc/lantern ] || fail "/etc/lantern is left behind"
[ ! -e /var/lib/lantern ] || fail "/var/lib/lantern is left behind"
say "all is well"
