//! Libraries of NVIDIA that were installed with ONNX Runtime.
//!
//! The CUDA provider is linked to them, and its package does not say where they are: `pip` puts them into folders of
//! their own, which the system's loader does not search. A library that is loaded already is found by its name
//! (`dlopen(3)`), so they are loaded first.

use std::path::{Path, PathBuf};

use super::kind::ProviderKind;

/// The libraries, each behind those that it needs.
const LIBRARIES: [&str; 8] = [
    "libcudart.so.",
    "libnvrtc.so.",
    "libcublasLt.so.",
    "libcublas.so.",
    "libcurand.so.",
    "libcufft.so.",
    "libnvJitLink.so.",
    "libcudnn.so.",
];

/// Loads what was installed beside the library in this folder, as far as this kind of provider needs it. What is not
/// there, or does not load, is found by the system's loader or named in the provider's own error.
pub(crate) fn libraries_of(kind: ProviderKind, folder: &Path) {
    let kinds = [
        ProviderKind::Cuda,
        ProviderKind::TensorRt,
        ProviderKind::TensorRtRtx,
    ];
    if !kinds.contains(&kind) {
        return;
    }
    for library in libraries_near(folder) {
        if let Err(error) = ort::util::preload_dylib(&library) {
            tracing::debug!(library = %library.display(), %error, "a library of NVIDIA does not load");
        }
    }
}

/// The files beside the library, and in the folders of `pip`: `onnxruntime/capi` lies beside `nvidia/*/lib`.
fn libraries_near(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    if let Some(packages) = folder.ancestors().nth(2) {
        let packages = packages.join("nvidia").read_dir();
        let packages = packages.into_iter().flatten().flatten();
        folders.extend(packages.map(|package| package.path().join("lib")));
    }
    let files = folders.iter().filter_map(|folder| folder.read_dir().ok());
    let files: Vec<PathBuf> = files.flatten().flatten().map(|file| file.path()).collect();
    let with_version = |start: &str| {
        let is_it = |file: &&PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str());
            let version = name.and_then(|name| name.strip_prefix(start));
            version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
        };
        files.iter().find(is_it).cloned()
    };
    LIBRARIES.into_iter().filter_map(with_version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_pip_puts_them_each_behind_what_it_needs() {
        let site = tempfile::tempdir().unwrap();
        let capi = site.path().join("onnxruntime/capi");
        let [cuda, cudnn] =
            ["cu13", "cudnn"].map(|name| site.path().join("nvidia").join(name).join("lib"));
        for folder in [&capi, &cuda, &cudnn] {
            std::fs::create_dir_all(folder).unwrap();
        }
        for file in [
            "libcublas.so.13",
            "libcublasLt.so.13",
            "libcudart.so.13",
            "libcublas.so",
        ] {
            std::fs::write(cuda.join(file), "").unwrap();
        }
        std::fs::write(cudnn.join("libcudnn.so.9"), "").unwrap();
        std::fs::write(cudnn.join("libcudnn_ops.so.9"), "").unwrap();

        let found = libraries_near(&capi);
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "libcudart.so.13",
                "libcublasLt.so.13",
                "libcublas.so.13",
                "libcudnn.so.9"
            ]
        );
    }
}
