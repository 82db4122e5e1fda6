//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, Write};
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
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok((file, folder))
}

/// A disk that does not take so much takes no update either.
const PROBE: usize = 64 << 10;

/// Whether a folder takes what a round may leave there: a file without a name that is gone again.
///
/// # Errors
/// When the system refuses.
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(folder)?;
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
