//! What the host has given out: tokens to enrol with, and certificates. A database of its own, readable by its owner alone,
//! as the tokens' secrets are in it; what one request changes is committed as a whole, before it is answered.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fedtt_identity::{Issued, Serial, Token, TokenId};
use fedtt_wire::{DeviceName, Digest};
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// Token to what it allows, CBOR.
const TOKENS: TableDefinition<&str, &[u8]> = TableDefinition::new("tokens");
/// Token, device to the certificate it got with it, CBOR.
const USES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("uses");
/// Device, serial number to the certificate's end and its revocation, in Unix seconds; 0 for what is not revoked.
const CERTIFICATES: TableDefinition<(&str, &str), (u64, u64)> = TableDefinition::new("certificates");
/// Device to its last renewal, CBOR.
const RENEWALS: TableDefinition<&str, &[u8]> = TableDefinition::new("renewals");
/// Number of the last list of revoked certificates, and when that says it was made.
const LISTS: TableDefinition<&str, u64> = TableDefinition::new("lists");

/// How long a token is remembered after it expired, in seconds: whoever comes late is told why.
const REMEMBERED: u64 = 30 * 86_400;

/// A token, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The token.
    pub(super) token: Token,
    /// The device it is for; without, devices name themselves.
    pub(super) name: Option<DeviceName>,
    /// Groups its devices belong to.
    pub(super) labels: Vec<String>,
    /// Devices that may still enrol with it.
    pub(super) left: u32,
    /// Unix seconds of its making.
    pub(super) made: u64,
    /// Unix seconds of its end.
    pub(super) expires: u64,
}

/// A certificate that answered a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    /// The request.
    pub(super) ask: Digest,
    /// The certificate, PEM.
    pub(super) certificate: String,
    /// The request's count among the device's renewals.
    pub(super) count: u64,
    /// Unix seconds of its making; 0 where an earlier version has not noted it.
    #[serde(default)]
    pub(super) given: u64,
    /// Unix seconds of its end.
    #[serde(default)]
    pub(super) expires: u64,
}

/// Bounds of the time, in seconds, after which a device that says it has not got an answer is given another; a hundredth of the
/// certificate's life between them. Shorter than a device tries one way to ask before the other.
const LOST: (u64, u64) = (1, 300);

/// A request that comes too soon after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// The device, which counts on, has got its last certificate, and has no need of another before this time.
    Needless(u64),
    /// It has not, and gets another if it goes on asking.
    Soon,
}

impl Answered {
    pub(super) fn new(ask: Digest, issued: &Issued, count: u64, now: u64) -> Self {
        Answered { ask, certificate: issued.pem.clone(), count, given: now, expires: issued.expires }
    }

    /// Whether another request with this count, or a higher one, comes too soon at `now`: devices renew with a third of the life
    /// left, and each certificate is signed and kept.
    pub(super) fn early(&self, count: u64, now: u64) -> Option<Early> {
        // A clock that was set back begins anew.
        let since = now.checked_sub(self.given)?;
        let life = self.expires.saturating_sub(self.given);
        match count > self.count {
            true if since < life / 3 => Some(Early::Needless(self.given + life / 3)),
            false if since < (life / 100).clamp(LOST.0, LOST.1) => Some(Early::Soon),
            _ => None,
        }
    }
}

/// What the host has given out.
#[derive(Debug)]
pub(super) struct Ledger {
    database: Database,
}

/// Changes that are committed together.
pub(super) struct Changes {
    transaction: WriteTransaction,
}

impl Ledger {
    /// Opens or creates the ledger in a file.
    ///
    /// # Errors
    /// When the file cannot be opened, or another process has.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let refuse = |source: redb::Error| StoreError::Open { path: path.to_path_buf(), source: Box::new(source) };
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refuse(redb::Error::Io(error))),
            _ => {}
        }
        let database = crate::store::open(path, 1 << 20)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TOKENS)?;
        transaction.open_table(USES)?;
        transaction.open_table(CERTIFICATES)?;
        transaction.open_table(RENEWALS)?;
        transaction.open_table(LISTS)?;
        transaction.commit()?;
        Ok(Ledger { database })
    }

    /// Begins changes; without [`Changes::commit`] they never were.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn begin(&self) -> Result<Changes, StoreError> {
        Ok(Changes { transaction: self.database.begin_write()? })
    }
}

impl Changes {
    /// Makes the changes last.
    ///
    /// # Errors
    /// When the database fails; nothing has changed then.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit()?)
    }

    /// A token.
    pub(super) fn grant(&self, id: &TokenId) -> Result<Option<Grant>, StoreError> {
        let table = self.transaction.open_table(TOKENS)?;
        let found = table.get(id.to_string().as_str())?;
        found.map(|bytes| decode("a token", bytes.value())).transpose()
    }

    /// All tokens.
    pub(super) fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let table = self.transaction.open_table(TOKENS)?;
        table.iter()?.map(|entry| decode("a token", entry?.1.value())).collect()
    }

    pub(super) fn put_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        let id = grant.token.id().to_string();
        self.transaction.open_table(TOKENS)?.insert(id.as_str(), encode(grant)?.as_slice())?;
        Ok(())
    }

    /// Forgets tokens that expired long ago, and certificates that nobody accepts any more.
    pub(super) fn tidy(&self, now: u64) -> Result<(), StoreError> {
        let old = |grant: &Grant| grant.expires + REMEMBERED < now;
        for grant in self.grants()?.iter().filter(|grant| old(grant)) {
            let id = grant.token.id().to_string();
            self.transaction.open_table(TOKENS)?.remove(id.as_str())?;
            self.transaction.open_table(USES)?.retain(|(of, _), _| of != id)?;
        }
        self.transaction.open_table(CERTIFICATES)?.retain(|_, (end, _)| end >= now)?;
        Ok(())
    }

    /// What a device got with a token.
    pub(super) fn used(&self, id: &TokenId, name: &DeviceName) -> Result<Option<Answered>, StoreError> {
        let table = self.transaction.open_table(USES)?;
        let found = table.get((id.to_string().as_str(), name.as_str()))?;
        found.map(|bytes| decode("a token's use", bytes.value())).transpose()
    }

    /// Who has used a token.
    pub(super) fn users(&self, id: &TokenId) -> Result<Vec<String>, StoreError> {
        let id = id.to_string();
        let table = self.transaction.open_table(USES)?;
        let mut users = Vec::new();
        for entry in table.range((id.as_str(), "")..)? {
            let (key, _) = entry?;
            let (of, name) = key.value();
            if of != id {
                break;
            }
            users.push(name.to_string());
        }
        Ok(users)
    }

    /// A device has used a token.
    pub(super) fn spend(&self, grant: &Grant, name: &DeviceName, answered: &Answered) -> Result<(), StoreError> {
        let left = grant.left.saturating_sub(1);
        self.put_grant(&Grant { left, ..grant.clone() })?;
        let id = grant.token.id().to_string();
        self.transaction.open_table(USES)?.insert((id.as_str(), name.as_str()), encode(answered)?.as_slice())?;
        Ok(())
    }

    /// A device was given a certificate.
    pub(super) fn issued(&self, name: &DeviceName, issued: &Issued) -> Result<(), StoreError> {
        let serial = issued.serial.to_string();
        self.transaction.open_table(CERTIFICATES)?.insert((name.as_str(), serial.as_str()), (issued.expires, 0))?;
        Ok(())
    }

    /// Revokes all certificates of a name; returns how many.
    pub(super) fn revoke(&self, name: &DeviceName, now: u64) -> Result<usize, StoreError> {
        let mut table = self.transaction.open_table(CERTIFICATES)?;
        let mut valid = Vec::new();
        for entry in table.range((name.as_str(), "")..)? {
            let (key, value) = entry?;
            let ((of, serial), (end, revoked)) = (key.value(), value.value());
            if of != name.as_str() {
                break;
            }
            if revoked == 0 {
                valid.push((serial.to_string(), end));
            }
        }
        for (serial, end) in &valid {
            table.insert((name.as_str(), serial.as_str()), (*end, now))?;
        }
        Ok(valid.len())
    }

    /// The revoked certificates, and when they were.
    pub(super) fn revoked(&self) -> Result<Vec<(Serial, u64)>, StoreError> {
        let table = self.transaction.open_table(CERTIFICATES)?;
        let mut all = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            let (_, at) = value.value();
            if at != 0 {
                all.push((key.value().1.parse().map_err(|e| content("a certificate", e))?, at));
            }
        }
        Ok(all)
    }

    /// A device's last renewal.
    pub(super) fn renewal(&self, name: &DeviceName) -> Result<Option<Answered>, StoreError> {
        let table = self.transaction.open_table(RENEWALS)?;
        let found = table.get(name.as_str())?;
        found.map(|bytes| decode("a renewal", bytes.value())).transpose()
    }

    pub(super) fn put_renewal(&self, name: &DeviceName, answered: &Answered) -> Result<(), StoreError> {
        self.transaction.open_table(RENEWALS)?.insert(name.as_str(), encode(answered)?.as_slice())?;
        Ok(())
    }

    /// Renewals begin anew: the device has another key, or a new beginning.
    pub(super) fn forget_renewals(&self, name: &DeviceName) -> Result<(), StoreError> {
        self.transaction.open_table(RENEWALS)?.remove(name.as_str())?;
        Ok(())
    }

    /// Number and time of the next list of revoked certificates: both grow from list to list.
    pub(super) fn next_list(&self, now: u64) -> Result<(u64, u64), StoreError> {
        let mut table = self.transaction.open_table(LISTS)?;
        let last = |table: &redb::Table<'_, &str, u64>, key: &str| -> Result<u64, StoreError> {
            Ok(table.get(key)?.map_or(0, |value| value.value()))
        };
        let number = last(&table, "number")? + 1;
        let made = now.max(last(&table, "made")? + 1);
        table.insert("number", number)?;
        table.insert("made", made)?;
        Ok((number, made))
    }
}

fn content(what: &str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Content { what: what.to_string(), reason: reason.to_string() }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| content("an entry", e))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    ciborium::from_reader(bytes).map_err(|e| content(what, e))
}
