//! Files for what is too long for the database's pages, each under a number of its own that is never used again.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;

/// A folder of numbered files.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    next: AtomicU64,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let fail = |source| StoreError::File { path: folder.to_path_buf(), source };
        fs::create_dir_all(folder).map_err(fail)?;
        Ok(Files { folder: folder.to_path_buf(), next: AtomicU64::new(0) })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn fail(&self, number: u64) -> impl FnOnce(io::Error) -> StoreError {
        let path = self.path(number);
        |source| StoreError::File { path, source }
    }

    /// Removes all files but those named; numbers go on after them.
    pub(super) fn keep_only(&self, named: &BTreeSet<u64>) -> Result<(), StoreError> {
        let fail = |source| StoreError::File { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if number.is_none_or(|number| !named.contains(&number)) {
                fs::remove_file(entry.path()).map_err(|source| StoreError::File { path: entry.path(), source })?;
            }
        }
        self.next.store(named.last().map_or(0, |last| last + 1), Ordering::Release);
        Ok(())
    }

    /// A new file, empty.
    pub(crate) fn create(&self) -> Result<(u64, File), StoreError> {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        let file = File::options().write(true).create_new(true).open(self.path(number));
        Ok((number, file.map_err(self.fail(number))?))
    }

    /// Writes behind what a file holds.
    pub(crate) fn append(&self, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let file = File::options().append(true).open(self.path(number));
        file.and_then(|mut file| file.write_all(bytes)).map_err(self.fail(number))
    }

    pub(crate) fn read(&self, number: u64) -> Result<File, StoreError> {
        File::open(self.path(number)).map_err(self.fail(number))
    }

    /// Part of a file.
    pub(super) fn read_at(&self, number: u64, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read(number)?.read_exact_at(&mut bytes, range.start).map_err(self.fail(number))?;
        Ok(bytes)
    }

    /// Removes a file. One that cannot be removed is no more than lost room until the next start.
    pub(crate) fn remove(&self, number: u64) {
        let _ = fs::remove_file(self.path(number));
    }

    fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StoreError::File { path: self.folder.clone(), source })
    }
}

/// Files that come and go together with changes of the database: dropped without a commit, those written were never there and
/// those removed still are.
pub(super) struct Made {
    files: Arc<Files>,
    written: RefCell<Vec<(u64, File)>>,
    removed: RefCell<Vec<u64>>,
}

impl Made {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Made { files, written: RefCell::default(), removed: RefCell::default() }
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Writes a file of `parts`, one after the other; its number.
    pub(super) fn write<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Result<u64, StoreError> {
        let (number, mut file) = self.files.create()?;
        let mut written = Ok(());
        for part in parts {
            written = written.and_then(|()| file.write_all(part));
        }
        self.written.borrow_mut().push((number, file));
        written.map_err(self.files.fail(number))?;
        Ok(number)
    }

    pub(super) fn remove(&self, number: u64) {
        self.removed.borrow_mut().push(number);
    }

    /// Makes what was written last, whatever comes of the commit: what it does not name is swept at the next start.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let written = self.written.take();
        for (number, file) in &written {
            file.sync_data().map_err(self.files.fail(*number))?;
        }
        if written.is_empty() { Ok(()) } else { self.files.sync() }
    }

    /// Removes what is to go, now that the database has committed.
    pub(super) fn tidy(self) {
        self.removed.take().into_iter().for_each(|number| self.files.remove(number));
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.written.take().into_iter().for_each(|(number, _)| self.files.remove(number));
    }
}

/// Reads parts of something, in the order given.
pub(crate) struct Parts<S> {
    source: S,
    order: VecDeque<Range<u64>>,
}

impl<S> Parts<S> {
    pub(crate) fn new(source: S, order: Vec<Range<u64>>) -> Self {
        Parts { source, order: order.into() }
    }
}

/// What can be read from anywhere.
pub(crate) trait ReadAt {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl<S: ReadAt> Read for Parts<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.order.front().is_some_and(Range::is_empty) {
            self.order.pop_front();
        }
        let Some(part) = self.order.front_mut() else { return Ok(0) };
        let wanted = bytes.len().min((part.end - part.start) as usize);
        let count = self.source.read_at(&mut bytes[..wanted], part.start)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        part.start += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go_with_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(folder.path()).unwrap());
        let there = || fs::read_dir(folder.path()).unwrap().count();
        let first = Made::new(files.clone());
        let number = first.write([&b"ab"[..], b"c"].into_iter()).unwrap();
        first.sync().unwrap();
        first.tidy();
        assert_eq!(files.read_at(number, 1..3).unwrap(), b"bc");
        let aborted = Made::new(files.clone());
        aborted.write([&b"x"[..]].into_iter()).unwrap();
        aborted.remove(number);
        assert_eq!(there(), 2);
        drop(aborted);
        assert_eq!(there(), 1);
        let last = Made::new(files.clone());
        last.remove(number);
        last.tidy();
        assert_eq!(there(), 0);
    }

    #[test]
    fn what_nothing_names_is_swept_and_its_number_is_not_given_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        let numbers: Vec<u64> = (0..3).map(|_| files.create().unwrap().0).collect();
        fs::write(folder.path().join("else"), "").unwrap();
        let again = Files::open(folder.path()).unwrap();
        again.keep_only(&[numbers[1]].into()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(again.create().unwrap().0 > numbers[1]);
    }

    #[test]
    fn parts_are_read_in_the_order_given() {
        let mut text = String::new();
        Parts::new(&b"abcdefgh"[..], vec![5..8, 2..2, 0..3]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "fghabc");
        assert!(Parts::new(&b"abc"[..], vec![1..5, 0..1]).read_to_string(&mut text).is_err());
    }
}
