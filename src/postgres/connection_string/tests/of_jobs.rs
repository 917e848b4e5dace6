//! The connection strings of jobs rows: what they may have of the operator's, and what they may ask for.

use super::*;
use crate::postgres::authentication::LoginPolicy;

#[test]
fn a_job_gets_no_credential_for_a_server_of_its_choice() {
    let home = home(&[
        (
            ".pgpass",
            "*:*:*:*:anybody's\n*:5432:*:*:any host's\ndb:*:*:*:any port's\ndb:5432:*:*:the db's\ndb:6432:*:*:the pooler's\n",
        ),
        ("secrets", "*:*:*:*:stolen\n"),
        (".pg_service.conf", "[shop]\nhost=db\npassword=stolen\n"),
    ]);
    let environment = Environment::with(
        &[
            ("PGPASSWORD", "ours"),
            ("PGUSER", "me"),
            ("PGSSLMODE", "require"),
        ],
        home.path(),
    );
    let own = ConnectionString::completed("postgresql://db/jobs", &environment).unwrap();
    let job = |text: &str| ConnectionString::from_job(text, &environment, Some(&own));
    let given = |text: &str| password(&job(text).unwrap());

    // The server of --uri, as its user, with no less protection.
    assert_eq!(given("postgresql://me@db/other").as_deref(), Some("ours"));
    // Otherwise: the entry of the passfile for this server.
    assert_eq!(
        given("postgresql://you@db/other").as_deref(),
        Some("the db's")
    );
    assert_eq!(
        given("postgresql://me@db:6432/other").as_deref(),
        Some("the pooler's")
    );
    assert_eq!(given("postgresql://me@db:7000/other"), None);
    // With less protection than the operator asks for.
    for weaker in ["disable", "allow", "prefer"] {
        let uri = format!("postgresql://you@db/other?sslmode={weaker}");
        assert_eq!(given(&uri), None, "{weaker}");
    }
    assert_eq!(
        given("postgresql://you@db/other?sslmode=verify-full").as_deref(),
        Some("the db's")
    );
    // Nothing for a server that the operator has not named, whatever name the row gives it.
    assert_eq!(given("postgresql://me@evil/other"), None);
    assert_eq!(given("host=db hostaddr=192.0.2.1 user=me"), None);
    assert_eq!(given("host=db,evil user=me"), Some("the db's".to_owned()));
    let both = job("host=db,evil user=me").unwrap();
    let evil = both.servers().remove(1);
    assert_eq!(password(&both.narrowed(evil, Encryption::Prefer)), None);
    for file in ["passfile=secrets", "service=shop", "servicefile=x"] {
        let refused = job(&format!("host=evil user=me {file}"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("a job may not"), "{refused}");
    }
    // Variables that only say how to connect apply to every string.
    assert_eq!(
        job("host=evil user=me").unwrap().tls.encryption,
        Encryption::Require
    );
}

#[test]
fn the_client_certificate_of_the_home_folder_goes_to_our_own_server_alone() {
    let home = home(&[
        (".postgresql/postgresql.crt", ""),
        (".postgresql/postgresql.key", ""),
        (".postgresql/root.crt", ""),
    ]);
    let environment = Environment::with(&[("PGUSER", "me")], home.path());
    let own = ConnectionString::completed("postgresql://db/jobs", &environment).unwrap();
    assert!(own.tls.client_key.is_some() && own.tls.root_certificates.is_some());
    let job = |text: &str| ConnectionString::from_job(text, &environment, Some(&own)).unwrap();
    assert!(job("host=db user=me").tls.client_key.is_some());
    let elsewhere = job("host=evil user=me sslmode=require").tls;
    assert_eq!(elsewhere.client_key, None);
    assert_eq!(elsewhere.verification, Verification::Chain);
}

/// The policy of a login over the network, for a row of which `--uri` is another server's.
fn policy(text: &str, variables: &[(&str, &str)], passfile: &str) -> LoginPolicy {
    let home = home(&[(".pgpass", passfile)]);
    let environment = Environment::with(variables, home.path());
    let string = ConnectionString::from_job(text, &environment, None).unwrap();
    string.login(Reached::OverNetwork).1
}

#[test]
fn a_lent_password_is_kept_from_servers_that_prove_nothing() {
    let passfile = "db:5432:*:*:lent\n";
    let keeps = |options: &str| {
        let text = format!("host=db user=me {options}");
        policy(&text, &[], passfile).keeps_password
    };
    for open in [
        "",
        "sslmode=disable",
        "sslmode=require",
        "sslmode=verify-ca",
    ] {
        assert!(keeps(open), "{open}");
    }
    for safe in [
        "sslmode=verify-full",
        "sslrootcert=system",
        "sslmode=verify-ca sslrootcert=ca.pem",
        "sslmode=require sslrootcert=ca.pem",
        "password=own",
    ] {
        assert!(!keeps(safe), "{safe}");
    }
}

#[test]
fn require_auth_of_the_operator_holds_for_a_lent_password_whatever_a_row_says() {
    let variables = [("PGREQUIREAUTH", "scram-sha-256")];
    let passfile = "db:5432:*:*:lent\n";
    let allowed = |options: &str| {
        let text = format!("host=db user=me {options}");
        policy(&text, &variables, passfile).allowed.to_string()
    };
    assert_eq!(allowed(""), "scram-sha-256");
    assert_eq!(
        allowed("require_auth=password,scram-sha-256"),
        "scram-sha-256"
    );
    assert_eq!(allowed("require_auth=!scram-sha-256"), "");
    assert_eq!(allowed("require_auth=password password=own"), "password");
}

#[test]
fn nobodys_password_is_lent_to_a_socket_that_anybody_may_have_made() {
    let home = home(&[(".pgpass", "/tmp:5432:*:*:lent\nlocalhost:5432:*:*:lent\n")]);
    let environment = Environment::with(&[("PGPASSWORD", "ours"), ("PGUSER", "me")], home.path());
    let own = ConnectionString::completed("host=/tmp", &environment).unwrap();
    let found = |string: &ConnectionString, reached| {
        string.login(reached).0.get_password().map(<[u8]>::to_vec)
    };
    let [ours, lent] = ["ours", "lent"].map(|text| Some(text.as_bytes().to_vec()));
    for (user, password) in [("me", ours.clone()), ("you", lent)] {
        let text = format!("host=/tmp user={user}");
        let row = ConnectionString::from_job(&text, &environment, Some(&own)).unwrap();
        assert_eq!(found(&row, Reached::ByOpenSocket), None, "{user}");
        assert_eq!(found(&row, Reached::ByProtectedSocket), password, "{user}");
    }
    // The operator's own connection is as that of psql.
    assert_eq!(found(&own, Reached::ByOpenSocket), ours);
}

#[test]
fn the_numbers_of_a_row_are_capped_and_those_of_uri_are_not() {
    let numbers = "connect_timeout=2147483647 keepalives_idle=2147483647 keepalives_interval=2147483647 \
                   keepalives_count=2147483647 tcp_user_timeout=2147483647";
    let text = format!("host=h user=me {numbers}");
    let job = parse(&text).config();
    assert_eq!(job.get_connect_timeout(), Some(&Duration::from_secs(60)));
    assert_eq!(job.get_keepalives_idle(), Duration::from_secs(7200));
    assert_eq!(
        job.get_keepalives_interval(),
        Some(Duration::from_secs(600))
    );
    assert_eq!(job.get_keepalives_retries(), Some(30));
    assert_eq!(job.get_tcp_user_timeout(), Some(&Duration::from_secs(3600)));
    let own = ConnectionString::completed(&text, &nowhere())
        .unwrap()
        .config();
    assert_eq!(
        own.get_connect_timeout(),
        Some(&Duration::from_secs(2_147_483_647))
    );
    // What Linux takes.
    assert_eq!(own.get_keepalives_idle(), Duration::from_secs(32_767));
    assert_eq!(own.get_keepalives_retries(), Some(127));
    assert_eq!(
        parse("host=h connect_timeout=59").connect_timeout(),
        Duration::from_secs(59)
    );
    assert_eq!(
        parse("host=h connect_timeout=0").connect_timeout(),
        Duration::from_secs(10)
    );
    for wrong in ["99999999999999999999", "1e9"] {
        let text = format!("host=h connect_timeout={wrong}");
        assert!(
            ConnectionString::from_job(&text, &nowhere(), None).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_row_names_at_most_32_servers() {
    let hosts = |count: usize| format!("host={} user=me", vec!["h"; count].join(","));
    assert_eq!(parse(&hosts(32)).servers().len(), 32);
    let refused = ConnectionString::from_job(&hosts(33), &nowhere(), None);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("more than 32 servers")
    );
    let addresses = format!("hostaddr={} user=me", vec!["::1"; 33].join(","));
    assert!(ConnectionString::from_job(&addresses, &nowhere(), None).is_err());
    assert!(ConnectionString::completed(&hosts(33), &nowhere()).is_ok());
}

#[test]
fn a_string_of_many_megabytes_is_refused_at_once() {
    let long = "k".repeat(20 << 20);
    for text in [
        long.clone(),
        format!("{long}=1"),
        format!("postgresql://h/d?{long}=1"),
        format!("host=h {long}=1"),
    ] {
        assert!(ConnectionString::from_job(&text, &nowhere(), None).is_err());
    }
}
