//! The power mode of a Jetson board.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::files;

/// A power mode, as `nvpmodel` numbers and names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PowerMode {
    /// Its number.
    pub id: u32,
    /// Its name, such as `MAXN` or `15W`, where the configuration has it.
    pub name: Option<String>,
}

impl PowerMode {
    /// Whether `word` names it: its name, in any case, or its number.
    pub fn is(&self, word: &str) -> bool {
        let named = self.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(word.trim()));
        named || word.trim().parse() == Ok(self.id)
    }
}

impl fmt::Display for PowerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

/// The mode that `/var/lib/nvpmodel/status` states (`pmode:0002 fmode:quiet`), or the default of `/etc/nvpmodel.conf`,
/// whose lines `< POWER_MODEL ID=2 NAME=MODE_15W >` hold the names.
pub(super) fn read(root: &Path) -> Option<PowerMode> {
    let conf = files::text(&root.join("etc/nvpmodel.conf")).unwrap_or_default();
    let status = files::text(&root.join("var/lib/nvpmodel/status")).unwrap_or_default();
    let stated = status.split_whitespace().find_map(|word| word.strip_prefix("pmode:")?.parse().ok());
    let id = stated.or_else(|| entries(&conf, "PM_CONFIG").find_map(|entry| field(entry, "DEFAULT")?.parse().ok()))?;
    let own = entries(&conf, "POWER_MODEL").find(|entry| field(entry, "ID").and_then(|v| v.parse().ok()) == Some(id));
    let name = own.and_then(|entry| field(entry, "NAME")).map(str::to_string);
    Some(PowerMode { id, name })
}

/// What stands between `<` and `>` on lines of a kind.
fn entries<'a>(conf: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let inside = |line: &'a str| line.trim().strip_prefix('<')?.split('>').next();
    conf.lines().filter_map(inside).filter_map(move |entry| entry.trim().strip_prefix(kind))
}

fn field<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    entry.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
