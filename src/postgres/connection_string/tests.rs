use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, SslMode};

use super::credentials::Reached;
use super::environment::Environment;
use super::*;
use crate::postgres::tls::Verification;

mod of_jobs;

fn parse(text: &str) -> ConnectionString {
    ConnectionString::from_job(text, &nowhere(), None)
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn nowhere() -> Environment {
    Environment::with(&[], Path::new("/nonexistent"))
}

fn password(string: &ConnectionString) -> Option<String> {
    let (config, _) = string.login(Reached::OverNetwork);
    let password = config.get_password()?;
    Some(String::from_utf8(password.to_vec()).unwrap())
}

/// A folder with these files, which no other user may read.
fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    home
}

#[test]
fn the_password_is_never_shown() {
    for text in [
        "postgresql://me:s3cret@db.example.org:6432/shop",
        "postgresql://me:s3cret@db.example.org:6432/shop?sslmode=verify-full",
        "postgresql://me@db.example.org:6432/shop?password=s3cret",
        "host=db.example.org user=me password=s3cret dbname=shop port=6432",
        "host=db.example.org user=me password='s3cret' dbname=shop port=6432 sslmode=require",
    ] {
        let string = parse(text);
        let shown = format!("{string} {string:?} {:?}", string.config());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(
            shown.contains("postgresql://me:***@db.example.org:6432/shop"),
            "{shown}"
        );
    }
}

#[test]
fn a_refusal_does_not_repeat_the_string() {
    for text in [
        "",
        "s3cret",
        "http://me:s3cret@host/db",
        "postgresql://me:s3cret@host/db?sslmode=maybe",
        "postgresql://me:s3cret@host:port/db",
        "postgresql://me:a@s3cret@host/db",
        "postgresql://me:a/s3cret@host/db",
        "postgresql://me:%s3cret@host/db",
        "postgresql://me@host/db?s3cret=1",
        "postgresql:///db",
        "host=h password='s3cret",
        "host=h password=my s3cret=",
        "host=me:s3cret@h",
        // Found by fuzzing: with an address, the name was not checked.
        "host=me:s3cret@h hostaddr=::1",
        "host=h sslmode=s3cret",
        "host=h port=s3cret",
        "host=h connect_timeout=s3cret",
    ] {
        let refused = ConnectionString::from_job(text, &nowhere(), None);
        let error = refused.expect_err(text).to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn sslmode_decides_what_is_verified() {
    let tls = |options: &str| {
        let tls = parse(&format!("postgres://u@h/d?{options}")).tls;
        (tls.encryption, tls.verification)
    };
    assert_eq!(tls(""), (Encryption::Prefer, Verification::None));
    assert_eq!(
        tls("sslmode=disable"),
        (Encryption::Disable, Verification::None)
    );
    assert_eq!(
        tls("sslmode=allow"),
        (Encryption::Allow, Verification::None)
    );
    assert_eq!(
        tls("sslmode=require"),
        (Encryption::Require, Verification::None)
    );
    assert_eq!(
        tls("sslmode=verify-ca"),
        (Encryption::Require, Verification::Chain)
    );
    assert_eq!(
        tls("sslmode=verify-full"),
        (Encryption::Require, Verification::ChainAndHost)
    );
    assert_eq!(
        tls("sslrootcert=%2Fca.pem&sslmode=require"),
        (Encryption::Require, Verification::Chain)
    );
    assert_eq!(
        tls("sslrootcert=system"),
        (Encryption::Require, Verification::ChainAndHost)
    );
    assert_eq!(tls("ssl=true"), (Encryption::Require, Verification::None));
    let weak = "postgres://u@h/d?sslrootcert=system&sslmode=require";
    assert!(ConnectionString::from_job(weak, &nowhere(), None).is_err());
}

#[test]
fn other_parameters_reach_the_configuration() {
    let config = parse(
        "postgres://u@h/d?connect_timeout=3&sslmode=disable&application_name=mine&tcp_user_timeout=1500&channel_binding=require",
    )
    .config();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
    assert_eq!(config.get_application_name(), Some("mine"));
    assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
}

#[test]
fn an_option_that_restricts_and_is_not_supported_is_refused() {
    for option in [
        "require_auth=scram",
        "require_auth=md5,!none",
        "sslcrl=/crl",
        "gssencmode=require",
        "nonsense=1",
    ] {
        let text = format!("host=h {option}");
        assert!(
            ConnectionString::from_job(&text, &nowhere(), None).is_err(),
            "{option}"
        );
    }
    parse("host=h gssencmode=disable sslsni=1 krbsrvname=postgres client_encoding=LATIN1");
}

#[test]
fn keywords_keep_their_quoting() {
    let string = parse(r"host=h user='o\'brien' password = 'a b\\c' dbname=d\ e sslmode=prefer");
    assert_eq!(string.config().get_user(), Some("o'brien"));
    assert_eq!(password(&string).as_deref(), Some(r"a b\c"));
    assert_eq!(string.database(), "d e");
}

#[test]
fn several_servers_have_a_port_each_or_one_for_all() {
    let shown = |text| parse(text).to_string();
    assert_eq!(
        shown("postgres://u@a:1,b,[::1]:3/d"),
        "postgresql://u@a:1,b:5432,[::1]:3/d"
    );
    assert_eq!(shown("host=a,b port=7 user=u"), "postgresql://u@a:7,b:7/u");
    assert_eq!(
        shown("host=/run/pg,b port=1,2 user=u dbname=d"),
        "postgresql://u@%2Frun%2Fpg:1,b:2/d"
    );
    assert_eq!(
        shown("postgres://u@%2Frun%2Fpg/d"),
        "postgresql://u@%2Frun%2Fpg:5432/d"
    );
    assert_eq!(
        shown("postgres:///d?host=a,b&port=1,2&user=u"),
        "postgresql://u@a:1,b:2/d"
    );
    for wrong in [
        "host=a,b port=1,2,3",
        "host=a hostaddr=::1,::2",
        "host=a port=0",
        "host=a port=70000",
        "hostaddr=a",
    ] {
        assert!(
            ConnectionString::from_job(wrong, &nowhere(), None).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn the_string_outranks_the_service_and_the_service_the_environment() {
    let home = home(&[(
        ".pg_service.conf",
        "# comment\n[other]\nhost=other\n[shop]\nhost=service\nuser=service\npassword=from the file\n\n[last]\n",
    )]);
    let environment = Environment::with(
        &[
            ("PGSERVICE", "shop"),
            ("PGUSER", "environment"),
            ("PGDATABASE", "environment"),
            ("PGPASSWORD", "x"),
        ],
        home.path(),
    );
    let own = |text| ConnectionString::completed(text, &environment).unwrap();
    let string = own("postgresql://string/");
    assert_eq!(
        string.to_string(),
        "postgresql://service:***@string:5432/environment"
    );
    assert_eq!(password(&string).as_deref(), Some("from the file"));
    assert_eq!(
        own("service=other").to_string(),
        "postgresql://environment:***@other:5432/environment"
    );
    assert!(ConnectionString::completed("service=missing", &environment).is_err());
}

#[test]
fn a_passfile_is_searched_by_host_port_database_and_user() {
    let home = home(&[(
        ".pgpass",
        "# comment\nother:*:*:*:wrong\nh:1:d:u:first\nh:*:d:u:a\\:b\\\\c\n*:*:*:any:star\nlocalhost:*:*:*:local\n2001\\:db8\\:\\:1:*:*:*:six\n",
    )]);
    let own = |text| {
        let environment = Environment::with(&[], home.path());
        password(&ConnectionString::completed(text, &environment).unwrap())
    };
    assert_eq!(own("postgres://u@h:1/d").as_deref(), Some("first"));
    assert_eq!(own("postgres://u@h:2/d").as_deref(), Some(r"a:b\c"));
    assert_eq!(own("postgres://u@h:1/e"), None);
    assert_eq!(own("postgres://any@h:1/e").as_deref(), Some("star"));
    assert_eq!(own("postgres://u:given@h:1/d").as_deref(), Some("given"));
    assert_eq!(own("host=/tmp user=u").as_deref(), Some("local"));
    assert_eq!(own("postgres://u@[2001:db8::1]/d").as_deref(), Some("six"));

    fs::set_permissions(
        home.path().join(".pgpass"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    assert_eq!(own("postgres://u@h:1/d"), None);
}

#[test]
fn a_control_character_is_refused_in_everything_that_is_sent() {
    for name in [
        "user",
        "dbname",
        "options",
        "application_name",
        "fallback_application_name",
        "host",
    ] {
        for bad in [
            "\r\nFLUSHALL",
            "\n",
            "\x1b[2J",
            "\t",
            "\x7f",
            "\u{85}",
            "\u{9b}",
        ] {
            let host = if name == "host" { "" } else { "host=h " };
            let text = format!("{host}{name}='a{bad}b'");
            let refused = ConnectionString::from_job(&text, &nowhere(), None);
            let said = refused.expect_err(&text).to_string();
            assert!(
                said.contains(name) && said.contains("control character"),
                "{said}"
            );
        }
    }
    for encoded in [
        "postgresql://a%0Ab@h/d",
        "postgresql://h/d%0d",
        "postgresql://h%09/d",
        "postgresql://h/d?options=%1b",
    ] {
        let refused = ConnectionString::from_job(encoded, &nowhere(), None);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("control character"),
            "{encoded}"
        );
    }
    let environment = Environment::with(&[("PGOPTIONS", "-c\na=b")], Path::new("/nonexistent"));
    assert!(ConnectionString::completed("host=h", &environment).is_err());
    assert!(
        parse("host=h user='ünïcode 名 \u{202e}' password='a\nb\tc'")
            .config()
            .get_password()
            .is_some()
    );
}

/// A megabyte that is no connection string took gigabytes to be compared with every keyword.
#[test]
fn files_in_the_home_folder_that_never_end_or_begin_are_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let fifo = |name| {
        let path = home.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    };
    fifo(".pgpass");
    fifo(".pg_service.conf");
    let environment = Environment::with(&[], home.path());
    let own = ConnectionString::completed("host=h user=me", &environment).unwrap();
    assert_eq!(password(&own), None);
    let refused = ConnectionString::completed("service=x", &environment).unwrap_err();
    assert!(refused.to_string().contains("cannot be read"), "{refused}");
    for endless in ["/dev/zero", "/proc/self/pagemap", "/proc/self/mem"] {
        let environment = Environment::with(&[("PGPASSFILE", endless)], home.path());
        let own = ConnectionString::completed("host=h user=me", &environment).unwrap();
        assert_eq!(password(&own), None, "{endless}");
    }
}

#[test]
fn a_socket_in_tmp_is_used_only_where_it_is_named() {
    for text in ["postgresql:///d", "user=me", "host=,h"] {
        let own = ConnectionString::completed(text, &nowhere()).unwrap();
        assert_eq!(own.first_server().host(), "/var/run/postgresql", "{text}");
    }
    let named = ConnectionString::completed("host=/tmp user=me", &nowhere()).unwrap();
    assert_eq!(named.first_server().host(), "/tmp");
}
