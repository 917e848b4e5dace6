//! `--json`, as every command has it that can print JSON.

use clap::Args;

/// The short form of `--format json`.
#[derive(Args)]
pub struct JsonFlag {
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

impl JsonFlag {
    /// The format that was asked for: `json` with the flag, or else `format`.
    pub fn or<F>(&self, json: F, format: F) -> F {
        match self.json {
            true => json,
            false => format,
        }
    }
}
