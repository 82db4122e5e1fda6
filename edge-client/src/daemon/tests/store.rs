use std::os::unix::fs::PermissionsExt as _;

use fedtt_wire::RunId;

use crate::daemon::{StateDir, StoreError};
use crate::round::Slot;

fn run(name: &str) -> RunId {
    RunId::new(name).unwrap()
}

#[test]
fn what_was_saved_is_read_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let (store, found) = StateDir::open(folder.path()).unwrap();
    assert!(found.files.is_empty() && found.ledger.is_none());
    let mode = std::fs::metadata(folder.path().join("runs")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else's to read");
    store.remember(b"far").unwrap();
    store.save(&run("a"), Slot::State, b"one").unwrap();
    store.save(&run("a"), Slot::State, b"two").unwrap();
    store.save(&run("a"), Slot::Work, b"work").unwrap();
    store.save(&run("b"), Slot::Work, b"other").unwrap();
    store.forget(&run("b")).unwrap();
    store.forget(&run("b")).unwrap();
    assert!(matches!(StateDir::open(folder.path()), Err(StoreError::InUse(_))), "one process at a time");
    drop(store);

    // What a loss of power leaves behind.
    std::fs::write(folder.path().join("runs/a/.new-123"), b"half").unwrap();
    std::fs::create_dir(folder.path().join("runs/.hidden")).unwrap();
    std::fs::write(folder.path().join(".new-456"), b"half").unwrap();
    let (store, found) = StateDir::open(folder.path()).unwrap();
    assert_eq!(found.ledger.as_deref(), Some(b"far".as_slice()));
    let mut files = found.files;
    files.sort();
    assert_eq!(files, [(run("a"), Slot::State, b"two".to_vec()), (run("a"), Slot::Work, b"work".to_vec())]);
    assert!(!folder.path().join("runs/a/.new-123").exists() && !folder.path().join(".new-456").exists());

    store.set_aside(&run("a"), Slot::State).unwrap();
    assert_eq!(std::fs::read(folder.path().join("runs/a/state.damaged")).unwrap(), b"two");
    drop(store);
    assert_eq!(StateDir::open(folder.path()).unwrap().1.files.len(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = StateDir::open(&file.join("state")).unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("state"), "{error}");
}
