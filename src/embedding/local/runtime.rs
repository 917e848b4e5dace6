//! Finds and loads the ONNX Runtime library, once for the process.
//!
//! The library is loaded at run time (`dlopen`) rather than linked. So the daemon starts on a machine without it and
//! can explain what is missing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::embedding::error::EmbeddingError;

/// The file name of the library on this platform.
const LIBRARY_NAME: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// Where packages and the installation instructions of ONNX Runtime put the library.
const SYSTEM_FOLDERS: &[&str] = &[
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/homebrew/lib",
];

/// ONNX Runtime allows one environment for each process (`OrtApi::CreateEnv` in its C API documentation).
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
/// The file that was loaded.
static LIBRARY: OnceLock<PathBuf> = OnceLock::new();

/// Returns the environment of this process; the first call loads the library.
///
/// `explicit` is a path that the user gave; `data_path` is the daemon's data folder, whose `lib` is searched first, before
/// the folder that was installed with the program.
///
/// Public only for benchmarks, which compare the engine with a bare session.
///
/// # Errors
///
/// If the library is not found, does not load, or is too old.
pub fn environment(
    explicit: Option<&Path>,
    data_path: &Path,
) -> Result<Environment, EmbeddingError> {
    let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let library = find(explicit, data_path)?;
    let unusable = |reason: String| EmbeddingError::RuntimeUnusable {
        path: library.clone(),
        reason,
    };
    let environment = ort::init_from(&library)
        .map_err(|error| unusable(error.to_string()))?
        .with_name("lantern")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    tracing::debug!(library = %library.display(), "ONNX Runtime loaded");
    LIBRARY.get_or_init(|| library);
    Ok(loaded.insert(environment).clone())
}

/// The file of the library, once it is loaded.
pub(crate) fn library() -> Option<PathBuf> {
    LIBRARY.get().cloned()
}

/// Finds the library. A path that the user named is used or rejected, never silently replaced by another library.
fn find(explicit: Option<&Path>, data_path: &Path) -> Result<PathBuf, EmbeddingError> {
    let variable = std::env::var_os("ORT_DYLIB_PATH")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    if let Some(named) = explicit.map(Path::to_path_buf).or(variable) {
        return in_folder(&named).ok_or(EmbeddingError::RuntimeNotFound {
            library: LIBRARY_NAME,
            looked_in: vec![named],
        });
    }
    let search_path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::iter::once(data_path.join("lib"))
        .chain(folder_of_program())
        .chain(std::env::split_paths(&search_path).filter(|folder| folder.is_absolute()))
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .collect();
    let found = folders.iter().find_map(|folder| in_folder(folder));
    found.ok_or(EmbeddingError::RuntimeNotFound {
        library: LIBRARY_NAME,
        looked_in: folders,
    })
}

/// The folder of the library that comes with the program in a package or an archive: `/usr/lib/lantern-cli` for
/// `/usr/bin/lantern-cli`. An account that may write there can replace the program as well.
fn folder_of_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let prefix = program.parent()?.parent()?;
    Some(prefix.join("lib").join("lantern-cli"))
}

/// The path itself if it is a file, else the library in this folder: under its plain name, or else with the highest
/// version suffix.
fn in_folder(path: &Path) -> Option<PathBuf> {
    // `ort` would resolve a relative path against the folder of the executable, not the working directory.
    let path = std::path::absolute(path).ok()?;
    if path.is_file() {
        return Some(path);
    }
    let plain = path.join(LIBRARY_NAME);
    if plain.is_file() {
        return Some(plain);
    }
    let versioned = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let version = name.to_str()?.strip_prefix(LIBRARY_NAME)?;
        version.starts_with('.').then(|| entry.path())
    };
    std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter_map(versioned)
        .max()
}

/// Forwards the log of ONNX Runtime to ours. Its warnings are about graph optimization, which is of no use to an
/// operator; its errors come back as the error of the call, too, where it is known whether they matter.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", location, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", location, "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_file_by_folder_and_by_version() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path()), None);
        let versioned = folder.path().join(format!("{LIBRARY_NAME}.1.32.0"));
        std::fs::write(&versioned, "").unwrap();
        assert_eq!(in_folder(folder.path()), Some(versioned.clone()));
        assert_eq!(in_folder(&versioned), Some(versioned));
    }

    #[test]
    fn the_error_for_a_named_library_that_is_missing_has_the_remedy() {
        let error = find(Some(Path::new("/nowhere/at/all")), Path::new("/data")).unwrap_err();
        let sentence = error.to_string();
        assert!(
            sentence.contains("/nowhere/at/all") && sentence.contains("ORT_DYLIB_PATH"),
            "{sentence}"
        );
    }
}
