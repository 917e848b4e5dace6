//! Where the demo finds its things: the checkout it was built in, the run-time parts of `make setup`, the real binary.

use std::env;
use std::path::{Display, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::paths::{checkout, runtime};

pub struct Paths {
    pub articles: PathBuf,
    /// `.runtime` of the checkout: libonnxruntime, PostgreSQL, models.
    pub data: PathBuf,
    /// The `lantern-cli` that the demo drives, built beside it.
    pub binary: PathBuf,
    /// The daemon's log, kept after the demo.
    pub log: PathBuf,
}

impl Paths {
    /// # Errors
    /// Names the first part that is missing and the command that makes it.
    pub fn find() -> Result<Paths> {
        let data = env::var_os("LANTERN_DATA_PATH").map_or_else(runtime, PathBuf::from);
        ensure!(
            data.is_dir(),
            "{} does not exist; `make setup` fetches what belongs there",
            data.display()
        );
        let binary = match env::var_os("LANTERN_CLI") {
            Some(path) => PathBuf::from(path),
            None => binary_beside_this_one()?,
        };
        ensure!(
            binary.is_file(),
            "{} does not exist; `make build` builds it",
            binary.display()
        );
        Ok(Paths {
            articles: checkout().join("demo/articles.jsonl"),
            log: data.join("demo.log"),
            data,
            binary,
        })
    }
}

/// A path as short as it can be said from the folder that the demo was started in.
pub fn shown(path: &Path) -> Display<'_> {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display()
}

/// Cargo puts both into the same folder.
fn binary_beside_this_one() -> Result<PathBuf> {
    let demo = env::current_exe().context("cannot find out where this program lies")?;
    Ok(demo.with_file_name("lantern-cli"))
}
