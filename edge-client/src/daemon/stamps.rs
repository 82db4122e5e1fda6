//! Files as the system describes them: whether they have changed is told without reading them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Data, Settings};

/// Files, each with what the system says of it; without where it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// Device, inode, length, and the times of the last change to content and to inode, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamps {
    /// Of the files of examples.
    pub(super) fn of_data(data: &Data) -> Self {
        let Data::Files { paths, .. } = data else { return Stamps::default() };
        Stamps(paths.iter().map(|path| stamped(path.clone())).collect())
    }

    /// Of the files of examples, the bundles and the engine's library.
    pub(super) fn of_settings(settings: &Settings) -> Self {
        let mut stamps = Stamps::of_data(&settings.data);
        for folder in settings.bundles.iter().chain(&settings.engine.library) {
            stamps.0.push(stamped(folder.clone()));
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            files.sort();
            stamps.0.extend(files.into_iter().map(stamped));
        }
        stamps
    }
}

fn stamped(path: PathBuf) -> (PathBuf, Option<Stamp>) {
    let stamp = stamp(&path);
    (path, stamp)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some(Stamp(found.dev(), found.ino(), found.len(), modified, changed))
}
