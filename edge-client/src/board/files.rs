//! Small files of a system.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// No file of a system that is read here is longer.
const LONGEST: u64 = 64 * 1024;

/// A file's text, without white space and NULs at its ends; `None` if it cannot be read or is empty.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_string())
}

/// The number in a file; of several the first.
pub(super) fn number(path: &Path) -> Option<i64> {
    text(path)?.split_whitespace().next()?.parse().ok()
}

/// Entries of a folder whose names begin with `prefix`, in the order of their names with numbers counted.
pub(super) fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries.filter(|path| name(path).starts_with(prefix)).collect();
    found.sort_by_key(|path| (name(path).trim_start_matches(prefix).parse::<u64>().ok(), name(path).to_string()));
    found
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
