//! Any text as a connection string: the password is never shown, what libpq's other Rust parser takes means the same here,
//! and what was understood can be written down and understood again.

#![no_main]

use lantern::postgres::ConnectionString;
use libfuzzer_sys::{Corpus, fuzz_target};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Stands for the password: nothing else contains it by chance. In a text it is put wherever there is a `\x01`.
const PASSWORD: &str = "sw0rdf1sh";

fuzz_target!(|text: &str| -> Corpus {
    if text.len() > 4096 {
        return Corpus::Reject;
    }
    let text = &text.replace('\x01', PASSWORD);
    match text.parse::<ConnectionString>() {
        Err(error) => hides_the_password(text, &error.to_string()),
        Ok(string) => {
            let config = string.config();
            assert!(!config.get_hosts().is_empty());
            assert_eq!(config.get_hosts().len(), config.get_ports().len());
            assert!(!config.get_ports().contains(&0));
            if config.get_password() == Some(PASSWORD.as_bytes())
                && text.matches(PASSWORD).count() == 1
            {
                hides_the_password(text, &format!("{string} {string:?} {config:?}"));
            }
            agrees_with_the_driver(text, &config);
            survives_being_written(&config);
        }
    }
    Corpus::Keep
});

fn hides_the_password(text: &str, shown: &str) {
    assert!(!shown.contains(PASSWORD), "{text:?} is shown as {shown:?}");
}

/// Where tokio-postgres takes a text too, it is about the same user, password and database.
fn agrees_with_the_driver(text: &str, ours: &Config) {
    let Ok(theirs) = text.trim().parse::<Config>() else {
        return;
    };
    // It goes by the first '@' even behind a '/', adds up repeated hosts, and leaves a '%' alone that escapes nothing.
    let is_ambiguous = text.contains('@') || text.contains('%') || text.matches("host").count() > 1;
    if is_ambiguous || text.matches("user").count() > 1 || text.matches("password").count() > 1 {
        return;
    }
    if let Some(user) = theirs.get_user().filter(|user| !user.is_empty()) {
        assert_eq!(ours.get_user(), Some(user));
    }
    if let Some(password) = theirs
        .get_password()
        .filter(|password| !password.is_empty())
    {
        assert_eq!(ours.get_password(), Some(password));
    }
}

/// Its parts as keywords, quoted, give the same parts.
fn survives_being_written(config: &Config) {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"));
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let mut text = format!("host={} port={}", quoted(&hosts.join(",")), ports.join(","));
    let password = config
        .get_password()
        .map(|password| std::str::from_utf8(password).expect("it was text"));
    for (name, value) in [
        ("user", config.get_user()),
        ("dbname", config.get_dbname()),
        ("password", password),
        ("options", config.get_options()),
        ("application_name", config.get_application_name()),
    ] {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={}", quoted(value)));
        }
    }
    let again = text
        .parse::<ConnectionString>()
        .unwrap_or_else(|error| panic!("{error}: {text:?}"))
        .config();
    assert_eq!(again.get_hosts(), config.get_hosts());
    assert_eq!(again.get_ports(), config.get_ports());
    assert_eq!(again.get_user(), config.get_user());
    assert_eq!(again.get_dbname(), config.get_dbname());
    assert_eq!(again.get_password(), config.get_password());
    assert_eq!(again.get_options(), config.get_options());
    assert_eq!(again.get_application_name(), config.get_application_name());
}
