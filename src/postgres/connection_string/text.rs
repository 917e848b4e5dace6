//! From the text of a connection string to its parameters, in both of libpq's forms (PostgreSQL manual, "Connection
//! Strings").

use super::error::{Parsed, refused};
use super::foreign;
use super::keyword::Parameters;

/// Reads a connection string of either form.
///
/// # Errors
/// What is wrong with it, without any of its values: each may be part of a password that lacks an escape.
pub fn parameters(text: &str) -> Parsed<Parameters> {
    let text = text.trim();
    if text.is_empty() {
        return refused("it is empty");
    }
    if text.contains('\0') {
        return refused("it contains a NUL byte");
    }
    let prefixes = ["postgresql://", "postgres://"];
    match prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        Some(rest) => url(rest),
        None => match foreign::form(text) {
            Some(why) => refused(why),
            None => keywords(text),
        },
    }
}

/// The part after `postgresql://`: `[user[:password]@][host[:port][,...]][/database][?name=value[&...]]`.
fn url(mut rest: &str) -> Parsed<Parameters> {
    let mut parameters = Parameters::default();
    // As in libpq, the part before an '@' is credentials unless it has a '/'.
    if let Some((credentials, after)) = rest.split_once('@')
        && !credentials.contains('/')
    {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        set_unless_empty(&mut parameters, "user", user)?;
        set_unless_empty(&mut parameters, "password", password.unwrap_or(""))?;
        rest = after;
    }
    // A further '@' may belong to a password with a '/', whose rest would be taken for the name of a database.
    let (authority, _) = rest.split_once('?').unwrap_or((rest, ""));
    if authority.contains('@') {
        return refused(
            "there is an '@' too many: write %40 for one that is part of a name or the password, and %2F for a '/'",
        );
    }
    let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    set_hosts(&mut parameters, hosts)?;
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    set_unless_empty(
        &mut parameters,
        "dbname",
        path.strip_prefix('/').unwrap_or(""),
    )?;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    for (number, pair) in (1..).zip(pairs) {
        let Some((name, value)) = pair.split_once('=') else {
            return refused("an option after the '?' has no value");
        };
        let place = format!("option {number} behind the '?'");
        parameters.set_at(&place, &percent_decode(name)?, percent_decode(value)?)?;
    }
    Ok(parameters)
}

fn set_unless_empty(parameters: &mut Parameters, name: &str, encoded: &str) -> Parsed<()> {
    match encoded {
        "" => Ok(()),
        encoded => parameters.set(name, percent_decode(encoded)?),
    }
}

/// Splits hosts from their ports.
fn set_hosts(parameters: &mut Parameters, hosts: &str) -> Parsed<()> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((address, "")) => (address, ""),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, port),
                None => {
                    return refused("there is something between a host in brackets and its port");
                }
            },
            None if host.starts_with('[') => return refused("a host in brackets does not end"),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(percent_decode(name)?);
        ports.push(percent_decode(port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        parameters.set("host", names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        parameters.set("port", ports.join(","))?;
    }
    Ok(())
}

fn percent_decode(text: &str) -> Parsed<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let digit = |index: usize| Some(char::from(*tail.get(index)?).to_digit(16)? as u8);
        match (digit(0), digit(1)) {
            (Some(0), Some(0)) => return refused("it contains a NUL byte (%00)"),
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => {
                return refused(
                    "a '%' is not followed by two hexadecimal digits: write %25 for a '%'",
                );
            }
        }
        rest = &tail[2..];
    }
    String::from_utf8(bytes).or_else(|_| refused("a value is not UTF-8"))
}

/// Pairs of `name = value`. Values may be quoted with `'`, and `\` escapes one character.
fn keywords(text: &str) -> Parsed<Parameters> {
    let mut parameters = Parameters::default();
    let mut characters = text.chars().peekable();
    // Of the last pair: its keyword, and whether its value may go on behind a blank.
    let mut before: Option<(String, bool)> = None;
    for number in 1.. {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(parameters);
        }
        let mut name = String::new();
        while let Some(c) = characters.next_if(|c| *c != '=' && !c.is_whitespace()) {
            name.push(c);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next() != Some('=') {
            return refused(match before {
                Some((name, true)) => format!(
                    "there is a word without a '=' behind the value of {name}: a value with blanks in it needs quotes, \
                     {name}='…'"
                ),
                _ => "it is neither a postgresql:// URL nor key=value pairs".into(),
            });
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let is_quoted = characters.peek() == Some(&'\'');
        let value = value(&mut characters)?;
        if names_a_server(&name) && value.contains(';') {
            return refused(
                "its pairs are separated by semicolons, as for .NET: write host=… port=… dbname=… user=… password=…, \
                 separated by blanks",
            );
        }
        parameters.set_at(&format!("name {number} before a '='"), &name, value)?;
        before = Some((name, !is_quoted));
    }
    Ok(parameters)
}

/// Whether a name is that of the first pair in a connection string of .NET, which is libpq's too.
fn names_a_server(name: &str) -> bool {
    ["host", "server"]
        .iter()
        .any(|server| name.eq_ignore_ascii_case(server))
}

fn value(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Parsed<String> {
    let quoted = characters.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match characters.next() {
            None if quoted => return refused("a quoted value does not end"),
            None => return Ok(value),
            Some('\'') if quoted => return Ok(value),
            Some(c) if !quoted && c.is_whitespace() => return Ok(value),
            Some('\\') => value.extend(characters.next()),
            Some(c) => value.push(c),
        }
    }
}
