# What the tests of releases share: reporting, waiting, and a PostgreSQL of their own. Sourced by test-archive.sh and
# test-deb.sh, as root, in the checkout.
# shellcheck shell=bash

model=sentence-transformers/all-MiniLM-L6-v2
port=54876
work=$(mktemp --directory)
chmod 0755 "$work"
bindir=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort --version-sort | tail -n 1)

say() { printf '\n== %s\n' "$*"; }
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

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

start_postgres() {
    chown postgres "$work"
    runuser -u postgres -- "$bindir/initdb" --pgdata="$work/data" --auth=scram-sha-256 --auth-local=trust >/dev/null
    runuser -u postgres -- "$bindir/pg_ctl" --pgdata="$work/data" --log="$work/server.log" --wait start --options \
        "-c wal_level=logical -c port=$port -c unix_socket_directories=$work -c listen_addresses=127.0.0.1" >/dev/null
}

stop_postgres() {
    runuser -u postgres -- "$bindir/pg_ctl" --pgdata="$work/data" --mode=immediate stop >/dev/null 2>&1 || true
}

# A table with two rows, and all that a daemon with the role lantern and this password needs for it.
prepare_database() { # prepare_database PROGRAM PASSWORD
    local program=$1 password=$2
    "$program" sql jobs | sql
    "$program" sql role | sql --set=role=lantern --set=password="$password"
    sql --command='CREATE TABLE articles (id serial PRIMARY KEY, title text)' \
        --command="INSERT INTO articles (title) VALUES ('The moon pulls at the sea'), ('Bread needs time to rise')"
    "$program" sql prepare_publication | sql --set=schema=public --set=table=articles --set=key=id --set=source=title \
        --set=destination=title_embedding --set=type='real[]' --set=role=lantern
    sql --command="INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) VALUES
        ('postgresql://lantern@127.0.0.1:$port/postgres', 'public', 'articles', 'title', 'title_embedding', '$model')"
}

random_password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
