//! What a device calls itself where nobody says.

use std::fs;
use std::path::Path;

use fedtt_wire::DeviceName;

/// A name that no other board of a batch has: the board's serial number, else the machine's name with the beginning of its
/// machine id. `root` is `/`, or stands for it in tests.
pub fn own_name(root: &Path) -> Option<DeviceName> {
    let text =
        |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| safe(&text)).filter(|text| !text.is_empty());
    let serial = text("proc/device-tree/serial-number");
    let named = || {
        let (name, id) = (text("proc/sys/kernel/hostname")?, text("etc/machine-id")?);
        Some(format!("{}-{}", &name[..name.len().min(50)], &id[..id.len().min(8)]))
    };
    serial.or_else(named).and_then(|name| DeviceName::new(name).ok())
}

/// What of a text may stand in a name; device trees end theirs with a zero byte.
fn safe(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    kept.trim_start_matches(['-', '_', '.']).chars().take(64).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_named_by_their_serial_number_and_machines_by_name_and_id() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(own_name(root.path()), None);
        put("proc/sys/kernel/hostname", "ubuntu\n");
        assert_eq!(own_name(root.path()), None, "boards flashed alike have one name");
        put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        assert_eq!(own_name(root.path()).unwrap().as_str(), "ubuntu-01234567");
        put("proc/device-tree/serial-number", "1422221037451\0");
        assert_eq!(own_name(root.path()).unwrap().as_str(), "1422221037451");
        put("proc/device-tree/serial-number", "\0");
        assert_eq!(own_name(root.path()).unwrap().as_str(), "ubuntu-01234567");
    }
}
