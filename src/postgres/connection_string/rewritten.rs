//! Connection strings written again: without the password, for a jobs row; or with it hidden, for people.

use std::fmt::Write;

use super::defaults;
use super::environment::Environment;
use super::error::{InvalidConnectionString, refused};
use super::keyword::{Audience, Parameters};
use super::server::{Location, Server};
use super::{service, text};

/// What stands before the `?` of a URL, or may not be in a jobs row: files of this machine and secrets.
const LEFT_OUT: [&str; 11] = [
    "user",
    "password",
    "host",
    "port",
    "dbname",
    "service",
    "servicefile",
    "passfile",
    "sslcert",
    "sslkey",
    "application_name",
];

/// The string by which a jobs row names the server and database of `--uri`, as the operator wrote it: without the
/// password, which the password file or PGPASSWORD lends to it, and without files of this machine.
///
/// # Errors
/// If the string, a service file or a variable is not valid.
pub fn for_job(text: &str) -> Result<String, InvalidConnectionString> {
    for_job_in(text, &Environment::from_process())
}

fn for_job_in(text: &str, environment: &Environment) -> Result<String, InvalidConnectionString> {
    let mut parameters = text::parameters(text)?;
    service::apply(&mut parameters, environment)?;
    defaults::take_variables(&mut parameters, &[Audience::OwnServer], environment);
    let Some(user) = named(&parameters, "user").or(environment.user()) else {
        return refused("it names no user");
    };
    let user = percent_encode(user);
    url(&parameters, &user)
}

/// The string with its password as `***`; as it is if it has none. One that cannot be read is not shown.
pub fn without_password(text: &str) -> String {
    let Ok(parameters) = text::parameters(text) else {
        return "***".to_owned();
    };
    if named(&parameters, "password").is_none() {
        return text.to_owned();
    }
    let user = named(&parameters, "user").map_or_else(String::new, percent_encode);
    url(&parameters, &format!("{user}:***")).unwrap_or_else(|_| "***".to_owned())
}

/// The string without its password, to be used where a password file or PGPASSWORD has it; `None` where it cannot be
/// read.
pub fn omitting_password(text: &str) -> Option<String> {
    let parameters = text::parameters(text).ok()?;
    if named(&parameters, "password").is_none() {
        return Some(text.to_owned());
    }
    let login = named(&parameters, "user").map_or_else(String::new, percent_encode);
    url(&parameters, &login).ok()
}

/// Whether the string itself has a password.
pub fn has_password(text: &str) -> bool {
    text::parameters(text).is_ok_and(|parameters| named(&parameters, "password").is_some())
}

fn named<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.get(name).filter(|value| !value.is_empty())
}

/// `login` is what stands before the `@`.
fn url(parameters: &Parameters, login: &str) -> Result<String, InvalidConnectionString> {
    let mut servers = Server::from_parameters(parameters)?;
    if servers.is_empty() {
        servers.push(Server::local(parameters)?);
    }
    let servers: Vec<String> = servers.iter().map(authority).collect();
    let mut url = format!("postgresql://{login}@{}/", servers.join(","));
    if let Some(database) = named(parameters, "dbname") {
        url.push_str(&percent_encode(database));
    }
    let options = parameters
        .iter()
        .filter(|(name, value)| !LEFT_OUT.contains(name) && !value.is_empty())
        .filter(|(name, value)| *name != "sslrootcert" || *value == "system");
    for (number, (name, value)) in options.enumerate() {
        let separator = if number == 0 { '?' } else { '&' };
        let _ = write!(url, "{separator}{name}={}", percent_encode(value));
    }
    Ok(url)
}

/// Host and port, as a URL has them.
fn authority(server: &Server) -> String {
    let host = match &server.location {
        Location::Name(name) | Location::Resolved { name, .. } | Location::Address { name, .. } => {
            match name.contains(':') {
                true => format!("[{name}]"),
                false => percent_encode(name),
            }
        }
        Location::Directory(directory) => percent_encode(&directory.display().to_string()),
    };
    format!("{host}:{}", server.port)
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_row_names_the_same_server_and_no_secret() {
        let environment = Environment::default();
        let job = |text: &str| for_job_in(text, &environment).unwrap();
        assert_eq!(
            job("postgresql://me:s3cret@db.example.org/app"),
            "postgresql://me@db.example.org:5432/app"
        );
        assert_eq!(
            job(
                "host=a,b port=5433 user='the owner' password='s3 cret' dbname=d sslmode=verify-full sslkey=/k"
            ),
            "postgresql://the%20owner@a:5433,b:5433/d?sslmode=verify-full"
        );
        assert_eq!(
            job("postgresql://me@[::1]:6000/d"),
            "postgresql://me@[::1]:6000/d"
        );
        let socket = job("host=/run/pg user=me dbname=d passfile=/secret");
        assert_eq!(socket, "postgresql://me@%2Frun%2Fpg:5432/d");
        // It can be read again.
        assert_eq!(job(&socket), socket);
    }

    #[test]
    fn a_password_is_omitted_from_either_form() {
        let omitted = |text: &str| omitting_password(text).unwrap_or_default();
        let same = "host=a user=me passfile=/p";
        assert_eq!(omitted(same), same);
        let expected = "postgresql://me@a:5432/d";
        assert_eq!(omitted("postgresql://me:s3cret@a/d"), expected);
        assert_eq!(omitted("postgresql://me@a/d?password=s3cret"), expected);
        assert_eq!(omitted("host=a user=me password='s 3' dbname=d"), expected);
        assert_eq!(omitting_password("mysql://me:s3cret@a"), None);
    }

    #[test]
    fn a_password_is_hidden_and_all_else_is_shown() {
        let plain = "host=a user=me dbname=d";
        assert!(!has_password(plain) && has_password("host=a password=x"));
        assert_eq!(without_password(plain), plain);
        let hidden = without_password("postgresql://me:s3cret@a/d?connect_timeout=3");
        assert_eq!(hidden, "postgresql://me:***@a:5432/d?connect_timeout=3");
        for text in [
            "host=a password=s3cret user=me",
            "s3cret",
            "postgresql://me:s3%zzcret@a",
        ] {
            assert!(!without_password(text).contains("s3"), "{text}");
        }
    }
}
