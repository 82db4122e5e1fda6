//! Who belongs to a fleet: each device's public key, how it came by the host's trust, and whether it was revoked.
//!
//! Kept in a database of its own and in memory, so that every message can be held against it. Clones share it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fedtt_wire::{DeviceName, PublicKey};
use redb::{Database, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// Device to what is known of it, CBOR.
const DEVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("devices");

/// Most devices that are trusted on first use: a flood of made-up names is not kept.
const MOST_PINNED: usize = 100_000;

/// A device as the fleet knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it signs with.
    pub key: PublicKey,
    /// Whether it was enrolled, by a token or its certificate request; else its key was trusted on first use.
    pub enrolled: bool,
    /// Unix seconds since when it is known by this key.
    pub since: u64,
    /// The certificate it was given last.
    pub certificate: Option<Certificate>,
    /// Unix seconds of its revocation: nothing it says counts since.
    pub revoked: Option<u64>,
    /// The latest of its sessions that was heard of; what it announced in earlier ones is replayed.
    #[serde(default)]
    pub session: u64,
}

/// A certificate that was given to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Unix seconds of its end.
    pub not_after: u64,
}

/// Why a key was not pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The name is another key's.
    #[error("`{0}` is the name of another key")]
    OtherKey(DeviceName),
    /// It was revoked.
    #[error("it is revoked")]
    Revoked,
    /// There are too many.
    #[error("{MOST_PINNED} devices are known already")]
    Full,
}

/// The devices of a fleet. Clones share it.
#[derive(Clone, Debug)]
pub struct Devices {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    devices: BTreeMap<DeviceName, Device>,
    /// Those whose entry in the database is behind.
    behind: BTreeSet<DeviceName>,
    /// Those put out since somebody asked.
    gone: BTreeSet<DeviceName>,
}

/// What a message of a device is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it signs with.
    pub key: PublicKey,
    /// Whether it was enrolled.
    pub enrolled: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// The latest of its sessions.
    pub session: u64,
}

impl Devices {
    /// Opens or creates the registry in a file.
    ///
    /// # Errors
    /// When the file cannot be opened, another process has, or an entry is not understood.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(crate::store::open(path, 1 << 20)?)
    }

    /// A registry that is gone with the process.
    ///
    /// # Errors
    /// When the database cannot be set up.
    pub fn memory() -> Result<Self, StoreError> {
        Self::of(Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?)
    }

    fn of(database: Database) -> Result<Self, StoreError> {
        let transaction = database.begin_write()?;
        let mut devices = BTreeMap::new();
        {
            let table = transaction.open_table(DEVICES)?;
            for entry in table.iter()? {
                let (name, bytes) = entry?;
                let refuse = |reason: String| StoreError::Content { what: format!("device {}", name.value()), reason };
                let device = ciborium::from_reader(bytes.value()).map_err(|e| refuse(e.to_string()))?;
                devices.insert(DeviceName::new(name.value()).map_err(|e| refuse(e.to_string()))?, device);
            }
        }
        transaction.commit()?;
        let known = RwLock::new(Known { devices, ..Known::default() });
        Ok(Devices { shared: Arc::new(Shared { database, known }) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.shared.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device.
    pub fn get(&self, name: &DeviceName) -> Option<Device> {
        self.read().devices.get(name).cloned()
    }

    /// What a device's messages are held against.
    pub fn standing(&self, name: &DeviceName) -> Option<Standing> {
        let known = self.read();
        let Device { key, enrolled, revoked, session, .. } = known.devices.get(name)?;
        Some(Standing { key: *key, enrolled: *enrolled, revoked: revoked.is_some(), session: *session })
    }

    /// Those that were revoked or forgotten since the last time this was asked.
    pub fn take_gone(&self) -> BTreeSet<DeviceName> {
        if self.read().gone.is_empty() {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.write().gone)
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(DeviceName, Device)> {
        self.read().devices.iter().map(|(name, device)| (name.clone(), device.clone())).collect()
    }

    /// Trusts a key because it is the first under its name. Lasting only after [`Devices::keep`].
    ///
    /// # Errors
    /// When the name is another key's or revoked, or there are too many.
    pub fn pin(&self, name: &DeviceName, key: PublicKey, now: u64) -> Result<(), PinError> {
        let mut known = self.write();
        let Known { devices, behind, .. } = &mut *known;
        let full = devices.len() >= MOST_PINNED;
        match devices.entry(name.clone()) {
            Entry::Occupied(entry) if entry.get().revoked.is_some() => Err(PinError::Revoked),
            Entry::Occupied(entry) if entry.get().key != key => Err(PinError::OtherKey(name.clone())),
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(_) if full => Err(PinError::Full),
            Entry::Vacant(entry) => {
                let device = Device { key, enrolled: false, since: now, certificate: None, revoked: None, session: 0 };
                entry.insert(device);
                behind.insert(name.clone());
                Ok(())
            }
        }
    }

    /// A session of a device was heard of. Lasting only after [`Devices::keep`].
    pub fn heard(&self, name: &DeviceName, session: u64) {
        if self.read().devices.get(name).is_none_or(|device| device.session >= session) {
            return;
        }
        let mut known = self.write();
        let Known { devices, behind, .. } = &mut *known;
        if let Some(device) = devices.get_mut(name) {
            device.session = device.session.max(session);
            behind.insert(name.clone());
        }
    }

    /// Takes a device in with a key it proved to have, in place of whoever had its name. Lasting at once.
    ///
    /// # Errors
    /// When the database fails.
    pub fn enrol(
        &self,
        name: &DeviceName,
        key: PublicKey,
        certificate: Option<Certificate>,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut known = self.write();
        let session = known.devices.get(name).filter(|before| before.key == key).map_or(0, |before| before.session);
        let device = Device { key, enrolled: true, since: now, certificate, revoked: None, session };
        known.devices.insert(name.clone(), device);
        known.behind.insert(name.clone());
        self.commit(&mut known)
    }

    /// A device was given a new certificate. Lasting at once.
    ///
    /// # Errors
    /// When the database fails.
    pub fn renewed(&self, name: &DeviceName, certificate: Certificate) -> Result<(), StoreError> {
        self.change(name, |device| device.certificate = Some(certificate)).map(drop)
    }

    /// Nothing a device says counts any more, whatever key it comes with. Lasting at once. `None` if it is not known.
    ///
    /// # Errors
    /// When the database fails.
    pub fn revoke(&self, name: &DeviceName, now: u64) -> Result<Option<Device>, StoreError> {
        let revoked = self.change(name, |device| device.revoked = device.revoked.or(Some(now)))?;
        self.write().gone.insert(name.clone());
        Ok(revoked)
    }

    /// Forgets a device, so that another key may take its name. Lasting at once. Returns whether it was known.
    ///
    /// # Errors
    /// When the database fails.
    pub fn forget(&self, name: &DeviceName) -> Result<bool, StoreError> {
        let mut known = self.write();
        let found = known.devices.remove(name).is_some();
        known.behind.insert(name.clone());
        known.gone.insert(name.clone());
        self.commit(&mut known)?;
        Ok(found)
    }

    fn change(&self, name: &DeviceName, change: impl FnOnce(&mut Device)) -> Result<Option<Device>, StoreError> {
        let mut known = self.write();
        let Some(device) = known.devices.get_mut(name) else { return Ok(None) };
        change(device);
        let changed = device.clone();
        known.behind.insert(name.clone());
        self.commit(&mut known)?;
        Ok(Some(changed))
    }

    /// Makes everything last that does not yet; costs nothing where there is nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub fn keep(&self) -> Result<(), StoreError> {
        if self.read().behind.is_empty() {
            return Ok(());
        }
        self.commit(&mut self.write())
    }

    fn commit(&self, known: &mut Known) -> Result<(), StoreError> {
        let transaction = self.shared.database.begin_write()?;
        {
            let mut table = transaction.open_table(DEVICES)?;
            for name in &known.behind {
                let Some(device) = known.devices.get(name) else {
                    table.remove(name.as_str())?;
                    continue;
                };
                let mut bytes = Vec::new();
                let refuse = |reason: String| StoreError::Content { what: format!("device {name}"), reason };
                ciborium::into_writer(device, &mut bytes).map_err(|e| refuse(e.to_string()))?;
                table.insert(name.as_str(), bytes.as_slice())?;
            }
        }
        transaction.commit()?;
        known.behind.clear();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(name: &str) -> DeviceName {
        DeviceName::new(name).unwrap()
    }

    #[test]
    fn the_first_key_of_a_name_stays_its_key_until_it_is_forgotten_or_enrolled_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.redb");
        let (first, other) = (PublicKey::from([1; 32]), PublicKey::from([2; 32]));
        let d1 = name("d1");
        let devices = Devices::open(&path).unwrap();
        devices.pin(&d1, first, 10).unwrap();
        devices.pin(&d1, first, 20).unwrap();
        assert_eq!(devices.pin(&d1, other, 20), Err(PinError::OtherKey(d1.clone())));
        devices.heard(&d1, 7);
        devices.heard(&d1, 3);
        devices.keep().unwrap();
        drop(devices);

        let devices = Devices::open(&path).unwrap();
        let found = devices.get(&d1).unwrap();
        assert_eq!((found.key, found.enrolled, found.since, found.session), (first, false, 10, 7));
        let certificate = Certificate { serial: "0a".into(), not_after: 99 };
        devices.enrol(&d1, other, Some(certificate), 30).unwrap();
        let clone = devices.clone();
        assert_eq!(clone.pin(&d1, first, 31), Err(PinError::OtherKey(d1.clone())));
        clone.renewed(&d1, Certificate { serial: "0b".into(), not_after: 199 }).unwrap();
        assert_eq!(devices.revoke(&d1, 40).unwrap().unwrap().revoked, Some(40));
        assert_eq!(devices.revoke(&name("nobody"), 40).unwrap(), None);
        assert_eq!(devices.pin(&d1, other, 41), Err(PinError::Revoked));
        drop((devices, clone));

        let devices = Devices::open(&path).unwrap();
        let found = devices.get(&d1).unwrap();
        assert_eq!((found.key, found.enrolled, found.revoked, found.session), (other, true, Some(40), 0));
        assert_eq!(found.certificate.unwrap().serial, "0b");
        assert!(devices.forget(&d1).unwrap() && devices.all().is_empty());
        drop(devices);
        Devices::open(&path).unwrap().pin(&d1, first, 50).unwrap();
    }
}
