//! Connection service files: parameters under a name (PostgreSQL manual, "The Connection Service File").

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::postgres::plain_file;

use super::environment::Environment;
use super::error::{Parsed, refused};
use super::keyword::Parameters;

/// Where packages of libpq put the file of the system.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// Adds the parameters of the service that `parameters` name, as defaults.
///
/// # Errors
/// If no file defines the service, or its definition is not valid.
pub fn apply(parameters: &mut Parameters, environment: &Environment) -> Parsed<()> {
    let named = parameters.get("service").filter(|name| !name.is_empty());
    let Some(name) = named.or_else(|| environment.variable("PGSERVICE")) else {
        return Ok(());
    };
    let name = name.to_owned();
    let files = files(parameters, environment);
    for file_path in &files {
        let text = match plain_file::read(file_path) {
            Ok(file) => String::from_utf8(file.content).or_else(|_| {
                let path = file_path.display();
                refused(format!("the service file {path} is not UTF-8"))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let path = file_path.display();
                return refused(format!("the service file {path} cannot be read: {error}"));
            }
        };
        if let Some(lines) = section(&text, &name) {
            return take(lines, file_path, parameters);
        }
    }
    let looked: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    refused(format!(
        "no service of that name is defined in {}",
        looked.join(", ")
    ))
}

fn files(parameters: &Parameters, environment: &Environment) -> Vec<PathBuf> {
    let named = parameters.get("servicefile");
    let own = match named.or_else(|| environment.variable("PGSERVICEFILE")) {
        Some(file) => Some(PathBuf::from(file)),
        None => environment.home().map(|home| home.join(".pg_service.conf")),
    };
    let directories = match environment.variable("PGSYSCONFDIR") {
        Some(directory) => vec![directory],
        None => SYSTEM_DIRECTORIES.to_vec(),
    };
    let system = directories
        .into_iter()
        .map(|directory| Path::new(directory).join("pg_service.conf"));
    own.into_iter().chain(system).collect()
}

/// The lines below the heading `[name]`.
fn section<'a>(text: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let heading = format!("[{name}]");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == heading)?;
    let own = lines.take_while(|line| !line.starts_with('['));
    Some(own.filter(|line| !line.is_empty() && !line.starts_with('#')))
}

fn take<'a>(
    lines: impl Iterator<Item = &'a str>,
    file: &Path,
    parameters: &mut Parameters,
) -> Parsed<()> {
    let mut service = Parameters::default();
    for line in lines {
        let Some((name, value)) = line.split_once('=') else {
            let path = file.display();
            return refused(format!(
                "the service file {path} has a line that is not key=value"
            ));
        };
        if name == "service" {
            let path = file.display();
            return refused(format!(
                "the service file {path} has a service in a service"
            ));
        }
        service.set(name, value.to_owned())?;
    }
    parameters.set_defaults(&service);
    Ok(())
}
