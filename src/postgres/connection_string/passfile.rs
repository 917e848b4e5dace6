//! `~/.pgpass`: passwords by host, port, database and user (PostgreSQL manual, "The Password File").

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::postgres::plain_file;

use super::server::{Location, SOCKET_DIRECTORIES, Server};

/// The connection that needs a password.
pub struct Question<'a> {
    pub server: &'a Server,
    pub database: &'a str,
    pub user: &'a str,
    /// Whether the operator named the server. A jobs row gets no password from an entry for any host or any port (`*`):
    /// at another port, another program may listen. And for an address only from an entry for that address: the row may
    /// claim any name for it.
    pub is_trusted: bool,
}

/// The password of the first entry that matches. As in libpq, a file that others may read is ignored with a warning.
/// Unlike there, root may give it to a group of this process: systemd's credentials and the secrets of Kubernetes are such
/// files.
pub fn password(path: &Path, question: &Question<'_>) -> Option<String> {
    let file = match plain_file::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            let path = path.display();
            tracing::warn!("the password file {path} cannot be read: {error}");
            return None;
        }
    };
    let is_given_by_root = file.metadata.uid() == 0 && !geteuid().is_root();
    let forbidden = if is_given_by_root { 0o037 } else { 0o077 };
    if file.metadata.mode() & forbidden != 0 {
        tracing::warn!(
            "the password file {path} is not used: others may read it; run chmod 0600 {path}",
            path = path.display()
        );
        return None;
    }
    find(&String::from_utf8_lossy(&file.content), question)
}

/// The default path of the file.
pub fn default_path(home: &Path) -> PathBuf {
    home.join(".pgpass")
}

fn find(text: &str, question: &Question<'_>) -> Option<String> {
    let port = question.server.port.to_string();
    let host = host_in_passfile(question);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut rest = line;
            let mut next = || take_field(&mut rest);
            let (asked_host, asked_port, database, user) = (next()?, next()?, next()?, next()?);
            let password = unescape(rest.trim_end_matches('\r'));
            let fits = |field: &str, value: &str| field == "*" || unescape(field) == value;
            let named = question.is_trusted || (asked_host != "*" && asked_port != "*");
            (named
                && fits(asked_host, &host)
                && fits(asked_port, &port)
                && fits(database, question.database)
                && fits(user, question.user)
                && !password.is_empty())
            .then_some(password)
        })
}

/// The name of a server in a passfile. For a socket in a default directory it is `localhost`.
fn host_in_passfile(question: &Question<'_>) -> String {
    match &question.server.location {
        Location::Directory(directory)
            if SOCKET_DIRECTORIES
                .iter()
                .any(|known| directory == Path::new(known)) =>
        {
            "localhost".to_owned()
        }
        Location::Address { address, .. } if !question.is_trusted => address.to_string(),
        _ => question.server.host(),
    }
}

/// Takes the text up to the next unescaped `:` from the front of `rest`.
fn take_field<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let mut escaped = false;
    let end = rest.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    let field = &rest[..end];
    *rest = &rest[end + 1..];
    Some(field)
}

/// `\:` and `\\` stand for `:` and `\`.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            c => text.push(c),
        }
    }
    text
}
