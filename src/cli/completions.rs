//! `lantern-cli completions`: scripts with which shells complete its arguments.

use clap::{Args, Command};
use clap_complete::Shell;

use super::output;

/// Print the script with which a shell completes the arguments of lantern-cli
///
/// For bash, as root: lantern-cli completions bash > /usr/share/bash-completion/completions/lantern-cli. For zsh, into a
/// folder of $fpath as _lantern-cli; for fish: ~/.config/fish/completions/lantern-cli.fish.
#[derive(Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for this program.
///
/// # Errors
/// It cannot be printed.
pub fn run(arguments: &Completions, mut program: Command) -> anyhow::Result<()> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    Ok(output::data(&String::from_utf8_lossy(&script))?)
}
