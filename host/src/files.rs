//! Files that are there whole or not at all, and logs without torn lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

pub(crate) use fedtt_edge::files::write_secret;

/// Replaces a file: whoever reads it sees the old or the new content, also after a crash. One writer at a time.
///
/// # Errors
/// When the system refuses.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let fresh = path.with_file_name(name);
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Opens a log of lines to append to. A line that a crash left torn is cut off.
///
/// # Errors
/// When the system refuses.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut last = [0u8];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" {
            break;
        }
        end -= 1;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn torn_lines_are_cut_off() {
        let path = std::env::temp_dir().join(format!("fedtt-log-{}", std::process::id()));
        for (before, after) in [("", "new\n"), ("one\ntw", "one\nnew\n"), ("torn", "new\n"), ("one\n", "one\nnew\n")] {
            std::fs::write(&path, before).unwrap();
            open_log(&path).unwrap().write_all(b"new\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
        write_atomically(&path, b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        std::fs::remove_file(&path).unwrap();
    }
}
