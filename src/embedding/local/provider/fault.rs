//! A provider that is deliberately wrong, for tests: `faulty:absent` is not there, `faulty:padding` takes padding for
//! tokens, so that only texts in a mixed batch are wrong, `faulty:values` reads other tokens, and `faulty` is right.
//! Others count as devices with a memory of their own: `faulty:device` and `faulty:other` are right, `faulty:missing` is not
//! there, `faulty:wrong` reads other tokens, and `faulty:pooling` gives no token states. `faulty:memory` has memory for as
//! many padded tokens as are written in the file that the failpoint `device-memory` returns, `faulty:lost` is lost while the
//! file of `device-lost` exists, and each run on `faulty:slow` takes as many milliseconds longer as `device-slow` returns. The
//! beginning and the end of each run on one of them are written into the file of `device-runs`, if that exists.
//!
//! It exists only with the feature `failpoints`.

use super::choice::ExecutionProvider;
use crate::embedding::local::batch::Batch;

#[cfg(feature = "failpoints")]
fn fault(provider: &ExecutionProvider) -> Option<&str> {
    is_faulty(provider).then(|| provider.word()).flatten()
}

/// Whether this is the provider with faults.
#[cfg(feature = "failpoints")]
pub(crate) fn is_faulty(provider: &ExecutionProvider) -> bool {
    provider.kind == super::kind::ProviderKind::Faulty
}

/// Whether this is the provider that is not there.
#[cfg(feature = "failpoints")]
pub(crate) fn is_absent(provider: &ExecutionProvider) -> bool {
    matches!(fault(provider), Some("absent" | "missing"))
}

/// What a provider with faults computes in the place of this batch.
#[cfg(feature = "failpoints")]
pub(crate) fn replaced(provider: &ExecutionProvider, batch: &Batch) -> Option<Batch> {
    let mut replaced = batch.clone();
    match fault(provider)? {
        "padding" => replaced.mask.fill(1),
        "values" | "wrong" => replaced.ids.iter_mut().for_each(|id| *id /= 2),
        _ => return None,
    }
    Some(replaced)
}

/// The content of the file that a failpoint returns.
#[cfg(feature = "failpoints")]
fn content(failpoint: &str) -> Option<String> {
    let path = fail::eval(failpoint, |path| path).flatten()?;
    std::fs::read_to_string(path).ok()
}

/// Whether the device is there.
///
/// # Errors
///
/// If it is lost.
#[cfg(feature = "failpoints")]
pub(crate) fn check_device(provider: &ExecutionProvider) -> ort::Result<()> {
    let is_lost = fault(provider) == Some("lost") && content("device-lost").is_some();
    match is_lost {
        true => Err(ort::Error::new(
            "CUDA failure 46: all CUDA-capable devices are busy or unavailable",
        )),
        false => Ok(()),
    }
}

/// What a run on a provider with faults ends with in the place of its output.
///
/// # Errors
///
/// That error.
#[cfg(feature = "failpoints")]
pub(crate) fn check_run(provider: &ExecutionProvider, batch: &Batch) -> ort::Result<()> {
    check_device(provider)?;
    match fault(provider) {
        Some("memory") => {
            let most = content("device-memory").and_then(|most| most.trim().parse().ok());
            match most.is_some_and(|most: usize| batch.rows * batch.width > most) {
                true => Err(ort::Error::new(
                    "Failed to allocate memory for requested buffer of size 1",
                )),
                false => Ok(()),
            }
        }
        Some("pooling") if batch.weights.is_none() => {
            Err(ort::Error::new("token states do not leave this device"))
        }
        _ => Ok(()),
    }
}

/// A run that is under way.
#[cfg(feature = "failpoints")]
pub(crate) struct WatchedRun {
    file: Option<std::fs::File>,
    device: String,
}

/// Notes a run on a device until the result is dropped.
#[cfg(feature = "failpoints")]
pub(crate) fn watch_run(provider: &ExecutionProvider, batch: &Batch) -> WatchedRun {
    let value = |failpoint| fail::eval(failpoint, |value| value).flatten();
    let path = value("device-runs").filter(|_| fault(provider).is_some());
    let mut run = WatchedRun {
        file: path.and_then(|path| std::fs::OpenOptions::new().append(true).open(path).ok()),
        device: provider.to_string(),
    };
    run.note(&format!("begins {}", batch.rows * batch.width));
    if fault(provider) == Some("slow")
        && let Some(milliseconds) = value("device-slow").and_then(|value| value.parse().ok())
    {
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    }
    run
}

#[cfg(feature = "failpoints")]
impl WatchedRun {
    fn note(&mut self, what: &str) {
        use std::io::Write;

        if let Some(file) = &mut self.file {
            // One write, so that lines of several threads do not mix.
            let line = format!("{} {what}\n", self.device);
            file.write_all(line.as_bytes())
                .expect("the file of a test can be written");
        }
    }
}

#[cfg(feature = "failpoints")]
impl Drop for WatchedRun {
    fn drop(&mut self) {
        self.note("ends");
    }
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) struct WatchedRun;

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn watch_run(_provider: &ExecutionProvider, _batch: &Batch) -> WatchedRun {
    WatchedRun
}

/// Always `false`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn is_faulty(_provider: &ExecutionProvider) -> bool {
    false
}

/// Always `false`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn is_absent(_provider: &ExecutionProvider) -> bool {
    false
}

/// Always `None`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn replaced(_provider: &ExecutionProvider, _batch: &Batch) -> Option<Batch> {
    None
}

/// Always `Ok`.
///
/// # Errors
///
/// Never.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn check_run(_provider: &ExecutionProvider, _batch: &Batch) -> ort::Result<()> {
    Ok(())
}

/// Always `Ok`.
///
/// # Errors
///
/// Never.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn check_device(_provider: &ExecutionProvider) -> ort::Result<()> {
    Ok(())
}
