//! A service as systemd's files describe it: the unit with what is dropped in beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files;

/// Where units are, the one that goes before the others first.
const FOLDERS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Where state folders of the system's services are.
const STATES: &str = "/var/lib";

/// The assignments of a unit's `[Service]`, in the order they are read in.
pub(super) struct Unit(Vec<(String, String)>);

impl Unit {
    /// The unit of this name, if there is one.
    pub(super) fn read(root: &Path, name: &str) -> Option<Self> {
        let folders = || FOLDERS.iter().map(|folder| root.join(folder));
        let unit = folders().find_map(|folder| files::text(&folder.join(name)))?;
        // Of files that are called the same the first counts; they are read in the order of their names.
        let mut dropped: BTreeMap<String, PathBuf> = BTreeMap::new();
        for folder in folders().map(|folder| folder.join(format!("{name}.d"))) {
            for path in files::entries(&folder, "").into_iter().filter(|path| files::name(path).ends_with(".conf")) {
                dropped.entry(files::name(&path).to_string()).or_insert(path);
            }
        }
        let mut found = Unit(Vec::new());
        found.add(&unit);
        dropped.values().filter_map(|path| files::text(path)).for_each(|text| found.add(&text));
        Some(found)
    }

    fn add(&mut self, text: &str) {
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, value)) = line.split_once('=').filter(|_| section == "[Service]") {
                self.0.push((key.trim().to_string(), value.trim().to_string()));
            }
        }
    }

    fn last(&self, key: &str) -> Option<&str> {
        let value = self.0.iter().rfind(|(known, _)| known == key);
        value.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether `folder` is its state folder.
    pub(super) fn keeps_state_in(&self, folder: &Path) -> bool {
        self.last("StateDirectory").is_some_and(|own| Path::new(STATES).join(own) == folder)
    }

    /// The bytes it may have on a machine of `total`, if that is bounded.
    pub(super) fn memory(&self, total: u64) -> Option<u64> {
        let bytes = |key| size(self.last(key)?, total);
        ["MemoryMax", "MemoryHigh"].into_iter().filter_map(bytes).min()
    }
}

/// `512M`, `70%` or plain bytes, as in `systemd.resource-control(5)`; nothing for `infinity`.
fn size(text: &str, total: u64) -> Option<u64> {
    if let Some(percent) = text.strip_suffix('%') {
        let share = percent.trim().parse::<f64>().ok().filter(|percent| *percent >= 0.0)?;
        return Some((total as f64 * share / 100.0) as u64);
    }
    let unit = match text.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => 0,
    };
    let number = if unit > 0 { text.get(..text.len() - 1)? } else { text };
    number.trim().parse::<u64>().ok()?.checked_mul(1 << unit)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("80%", Some(800)),
            ("2M", Some(2 << 20)),
            ("1G", Some(1 << 30)),
            ("4096", Some(4096)),
            ("infinity", None),
            ("-5%", None),
            ("M", None),
        ] {
            assert_eq!(size(text, 1000), bytes, "{text}");
        }
    }
}
