//! Connection strings that people bring along from other programs.

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
