//! `lantern-cli man`: the manual pages, from what clap knows.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

use super::output;

/// Print the manual page, or write one for each subcommand
///
/// To read it without installing: lantern-cli man | man -l -
#[derive(Args)]
pub struct Man {
    /// Write lantern-cli.1 and a page for each subcommand into this folder, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// Prints the page of this program, or writes all pages.
///
/// # Errors
/// They cannot be printed or written.
pub fn run(arguments: &Man, program: Command) -> anyhow::Result<()> {
    match &arguments.into {
        None => Ok(output::data(&page(program)?)?),
        Some(folder) => clap_mangen::generate_to(program, folder)
            .with_context(|| format!("cannot write manual pages into {}", folder.display())),
    }
}

fn page(command: Command) -> anyhow::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}
