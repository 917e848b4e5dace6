#!/usr/bin/env bash
# Installs the .deb of target/dist on this Debian, runs the daemon from it as its account against a PostgreSQL of its own, and
# removes it again. As root; changes the machine: for one that is thrown away, as in the workflow of releases.
#
# Needs a PostgreSQL server (apt-get install postgresql) and the model in .runtime (make setup). Where systemd runs, the
# service is started by it; elsewhere as the unit would start it.
set -euo pipefail
cd "$(dirname "$0")/.."

deb=$(ls target/dist/lantern-cli_*.deb)
bindir=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
model=sentence-transformers/all-MiniLM-L6-v2
port=54876
work=$(mktemp --directory)
chmod 0755 "$work"

say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
expect() { # expect VALUE COMMAND…
    local wanted=$1 got
    shift
    got=$("$@") || true
    [ "$got" = "$wanted" ] || fail "'$*' gives '$got' and not '$wanted'"
}
eventually() { # eventually VALUE COMMAND…, for a minute
    local wanted=$1 got='' deadline=$((SECONDS + 60))
    shift
    until got=$("$@" 2>/dev/null) && [ "$got" = "$wanted" ]; do
        [ $SECONDS -lt $deadline ] || fail "'$*' gives '$got' and not '$wanted'"
        sleep 0.2
    done
}
sql() { runuser -u postgres -- psql --no-psqlrc --host="$work" --port=$port --quiet --tuples-only --no-align "$@"; }
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
    runuser -u postgres -- "$bindir/pg_ctl" --pgdata="$work/data" --mode=immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
    exit $status
}
trap finish EXIT

# What the unit sets, for a machine without systemd.
start_service() {
    if has_systemd; then
        systemctl start lantern
        return
    fi
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
    systemctl start lantern && fail "it starts without a jobs database" || true
    eventually failed systemctl show --property=ActiveState --value lantern
    expect 78 systemctl show --property=ExecMainStatus --value lantern
    systemctl reset-failed lantern
fi

say "a PostgreSQL of its own"
chown postgres "$work"
runuser -u postgres -- "$bindir/initdb" --pgdata="$work/data" --auth=scram-sha-256 --auth-local=trust >/dev/null
runuser -u postgres -- "$bindir/pg_ctl" --pgdata="$work/data" --log="$work/server.log" --wait start --options \
    "-c wal_level=logical -c port=$port -c unix_socket_directories=$work -c listen_addresses=127.0.0.1" >/dev/null
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
lantern-cli sql jobs | sql
lantern-cli sql role | sql --set=role=lantern --set=password="$password"
sql --command='CREATE TABLE articles (id serial PRIMARY KEY, title text)' \
    --command="INSERT INTO articles (title) VALUES ('The moon pulls at the sea'), ('Bread needs time to rise')"
lantern-cli sql prepare_publication | sql --set=schema=public --set=table=articles --set=key=id --set=source=title \
    --set=destination=title_embedding --set=type='real[]' --set=role=lantern
sql --command="INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) VALUES
    ('postgresql://lantern@127.0.0.1:$port/postgres', 'public', 'articles', 'title', 'title_embedding', '$model')"

say "configure and start the service"
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
runuser -u lantern -- env PGPASSWORD="$password" lantern-cli search --data-path /var/lib/lantern --offline --job 1 --limit 1 \
    --uri "postgresql://lantern@127.0.0.1:$port/postgres" 'what causes the tides?' | tee "$work/found"
grep --quiet moon "$work/found" || fail "the nearest text is another one"

if has_systemd; then
    say "a daemon that hangs is started again"
    hung=$(systemctl show --property=MainPID --value lantern)
    kill -STOP "$hung"
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
