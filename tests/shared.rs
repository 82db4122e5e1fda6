//! Build script of the crates whose tests use the reference material beside the repository: sets the configuration
//! flag `shared` where it is found, so that those tests count as ignored everywhere else.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shared)");
    println!("cargo::rerun-if-env-changed=FEDTT_SHARED");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = manifest.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    let beside = root.and_then(Path::parent).map(|parent| parent.join("shared"));
    let Some(shared) = std::env::var_os("FEDTT_SHARED").map(PathBuf::from).or(beside) else { return };
    // A folder that is absent must not be watched: Cargo would build anew every time.
    if shared.join("fixtures").is_dir() {
        println!("cargo::rerun-if-changed={}", shared.join("fixtures").display());
        println!("cargo::rustc-cfg=shared");
        println!("cargo::rustc-env=FEDTT_SHARED_FOUND={}", shared.display());
    }
}
