//! Connection strings that people bring along from other programs.

use testkit::{TestDatabase, server};

use crate::support::program;

/// Why a connection string is refused, as the daemon prints it.
async fn refused(uri: &str) -> String {
    let output = program().run(&["start-daemon", "--uri", uri]).await;
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{uri}: {said}");
    assert!(!said.contains("s3cret"), "{uri}: {said}");
    said
}

/// prisma/web 535 and its kind.
#[tokio::test]
async fn an_option_of_another_driver_is_named_with_what_to_do() {
    let url = "postgresql://me:s3cret@db.example.org/shop";
    for (query, words) in [
        (
            "schema=public",
            "the option schema is Prisma's, not libpq's: leave it out; the table's schema is in",
        ),
        (
            "sslmode=require&pgbouncer=true",
            "the option pgbouncer is Prisma's",
        ),
        (
            "connection_limit=5",
            "the option connection_limit is Prisma's",
        ),
        ("currentSchema=app", "the option currentSchema is JDBC's"),
        ("pool_max_conns=5", "the option pool_max_conns is pgx's"),
        (
            "statement_timeout=5000",
            "the option statement_timeout is a setting of the server",
        ),
        (
            "sslmod=require",
            "option 1 behind the '?' is not one of libpq's; did you mean sslmode?",
        ),
        (
            "sslmode=require&nonsense=1",
            "option 2 behind the '?' is not one of libpq's",
        ),
        (
            "sslmode=disabled",
            "sslmode is none of prefer, disable, allow, require, verify-ca, verify-full",
        ),
    ] {
        let said = refused(&format!("{url}?{query}")).await;
        assert!(said.contains(words), "{query}: {said}");
    }
    let said = refused("host=db.example.org user=me schema=app password=s3cret").await;
    assert!(said.contains("the option schema is Prisma's"), "{said}");
}

#[tokio::test]
async fn a_url_of_another_kind_is_recognized() {
    for (uri, words) in [
        (
            "postgresql+psycopg2://me:s3cret@h/d",
            "names a driver behind a '+', as SQLAlchemy's do",
        ),
        ("postgres+asyncpg://me:s3cret@h/d", "names a driver"),
        (
            "jdbc:postgresql://h/d?user=me&password=s3cret",
            "it is a URL of JDBC: leave jdbc: out",
        ),
        ("mysql://me:s3cret@h/d", "another kind of server"),
        ("POSTGRESQL://me:s3cret@h/d", "in lower case"),
        ("'postgresql://me:s3cret@h/d'", "it has quotes around it"),
        (
            "\"host=h user=me password=s3cret\"",
            "it has quotes around it",
        ),
        (
            "Host=h;Port=5432;Username=me;Password=s3cret",
            "semicolons, as for .NET",
        ),
        (
            "Server=h;User Id=me;Password=s3cret",
            "semicolons, as for .NET",
        ),
    ] {
        let said = refused(uri).await;
        assert!(said.contains(words), "{uri}: {said}");
    }
}

#[tokio::test]
async fn a_value_with_a_blank_asks_for_quotes() {
    let said = refused("host=h user=me password=my s3cret").await;
    assert!(
        said.contains("a value with blanks in it needs quotes, password='…'"),
        "{said}"
    );
    let said = refused("host=h user=me password=my s3cret dbname=d").await;
    assert!(said.contains("password='…'"), "{said}");
    let said = refused("host=h user=me password='my s3cret' x").await;
    assert!(
        said.contains("neither a postgresql:// URL nor key=value pairs"),
        "{said}"
    );
    let said = refused("s3cret").await;
    assert!(
        said.contains("neither a postgresql:// URL nor key=value pairs"),
        "{said}"
    );
}

#[tokio::test]
async fn a_percent_sign_and_an_empty_text_are_explained() {
    let said = refused("postgresql://me:s3cret%@h/d").await;
    assert!(said.contains("write %25 for a '%'"), "{said}");
    let mut command = program().command("start-daemon");
    let output = command.env("LANTERN_URI", "").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("it is empty; expected postgresql://"),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_or_a_database_that_is_not_there_is_named() {
    let database = TestDatabase::create(server::shared()).await;
    let uri = database.uri();
    let (place, _) = uri.rsplit_once('/').expect("a URI with a database");
    for (uri, words) in [
        (
            format!("{place}/shopp"),
            "database \"shopp\" does not exist (SQLSTATE 3D000): create the database",
        ),
        (
            "postgresql://me:s3cret@127.0.0.1:1/d".to_owned(),
            "cannot connect to postgresql://me:***@127.0.0.1:1/d: Connection refused",
        ),
        (
            "postgresql://me:s3cret@no-such-host.invalid/d".to_owned(),
            "its name cannot be resolved",
        ),
    ] {
        let said = refused(&uri).await;
        assert!(said.contains(words), "{uri}: {said}");
    }
}

#[test]
fn a_wrong_value_of_an_option_says_which_are_right() {
    for (arguments, words) in [
        (
            ["--max-retained-wal", "5"],
            "write a whole number and a unit (kB, MB, GB, TB), such as 16GB, or off",
        ),
        (["--slots", "three"], "[possible values: job, database]"),
        (["--url", "x"], "a similar argument exists: '--uri'"),
    ] {
        let mut command = program().command("start-daemon");
        let output = command.args(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn usage_lines_show_only_what_must_be_given() {
    for (subcommand, usage) in [
        (
            "search",
            "Usage: lantern-cli search [OPTIONS] --uri <URI> --job <ID> <QUERY>",
        ),
        (
            "verify",
            "Usage: lantern-cli verify [OPTIONS] --uri <URI> --job <ID>",
        ),
        ("start-daemon", "Usage: lantern-cli start-daemon [OPTIONS]"),
    ] {
        // LANTERN_DATA_PATH is set for all tests, which clap takes for an argument that was given.
        for argument in ["--threads=2", "--nonsense", "--threads=none"] {
            // With this argument a daemon starts.
            if (subcommand, argument) == ("start-daemon", "--threads=2") {
                continue;
            }
            let mut command = program().command(subcommand);
            let output = command.arg(argument).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("--data-path <DIR>"), "{said}");
            assert!(said.contains(usage) || !said.contains("Usage"), "{said}");
        }
    }
}
