//! Files that are there whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

/// Begins the names of files that are not complete.
pub(crate) const UNFINISHED: &str = ".new-";

/// Writes a file in one go: whoever reads it sees the old or the new content, also after a loss of power.
///
/// # Errors
/// When the system refuses.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (file, folder) = unfinished(path, bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// The same with a mode and, where one is given, for a group (by its number).
///
/// # Errors
/// When the system refuses.
pub fn write_for(path: &Path, bytes: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let (file, folder) = unfinished(path, bytes)?;
    if group.is_some() {
        chown(file.path(), None, group)?;
    }
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Writes a file only its owner can read, unless there is one by that name: that one stays. Also after a loss of power it is
/// there whole or not at all.
///
/// # Errors
/// When the system refuses.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (file, folder) = unfinished(path, bytes)?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => sync_folder(folder),
    }
}

/// A file with all its bytes on the disk, mode 0600, under another name in the folder of `path`; and that folder.
fn unfinished<'a>(path: &'a Path, bytes: &[u8]) -> io::Result<(NamedTempFile, &'a Path)> {
    let folder = folder_of(path);
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(plain)?;
    hand_over(file.as_file(), folder);
    file.write_all(bytes).map_err(plain)?;
    file.as_file().sync_all()?;
    Ok((file, folder))
}

/// What the system said, without the name of a file that was to be another's: that one is new each time.
fn plain(error: io::Error) -> io::Error {
    let said = error.to_string();
    match said.rsplit_once(" at path ") {
        Some((said, _)) => io::Error::new(error.kind(), said),
        None => error,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has a new file of root's making belong to whom its folder belongs to: what an operator does with `sudo` in a device's state is
/// the device's to read.
fn hand_over(made: &File, folder: &Path) {
    if rustix::process::geteuid().is_root()
        && let Ok(owner) = std::fs::metadata(folder)
        && owner.uid() != 0
    {
        // A root that may not give away keeps it.
        let _ = fchown(made, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Makes a folder, and those above it, with this mode, unless it is there. As a file, it belongs to whom the one above belongs to.
///
/// # Errors
/// When the system refuses.
pub(crate) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    if above != Path::new(".") {
        make_folder(above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        // Another was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            hand_over(&File::open(path)?, above);
            Ok(())
        }
    }
}

/// Opens a file to write to, and makes it where there is none, as [`hand_over`] has it.
///
/// # Errors
/// When the system refuses.
pub(crate) fn open_or_make(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match options.clone().create_new(true).open(path) {
        Ok(made) => {
            hand_over(&made, folder_of(path));
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// A disk that does not take so much takes no update either.
const PROBE: usize = 64 << 10;

/// Whether a folder takes what a round may leave there: a file without a name that is gone again.
///
/// # Errors
/// When the system refuses.
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(folder).map_err(plain)?;
    file.write_all(&[0xff; PROBE])?;
    file.sync_all()
}

/// Makes what was created, renamed or removed in a folder outlive a loss of power.
///
/// # Errors
/// When the system refuses.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_the_same_words_each_time() {
        let gone = tempfile::tempdir().unwrap().path().join("gone/file");
        let said = [(); 2].map(|()| write_atomically(&gone, b"").unwrap_err().to_string());
        assert!(said[0] == said[1] && !said[0].contains(UNFINISHED), "{said:?}");
        let probed = [(); 2].map(|()| probe(gone.parent().unwrap()).unwrap_err().to_string());
        assert_eq!(probed[0], probed[1]);
    }

    #[test]
    fn what_root_makes_in_anothers_folder_is_that_ones() {
        // Only root can give away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        chown(&state, Some(12_345), Some(54_321)).unwrap();
        drop(crate::daemon::StateDir::open(&state).unwrap());
        crate::identity::Identity::open(&state).unwrap().sessions().unwrap();
        let part = state.join("bundles/x.part");
        make_folder(&part, 0o777).unwrap();
        open_or_make(&part.join("weights"), OpenOptions::new().append(true)).unwrap();
        let mut left = vec![state];
        let mut seen = 0;
        while let Some(path) = left.pop() {
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (12_345, 54_321), "{}", path.display());
            seen += 1;
            if found.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert!(seen >= 8, "state, lock, runs, identity, its key and session, and what was fetched: {seen}");
    }
}
