//! Memory: the machine's, and what the control group of this process leaves of it.

use std::path::Path;

use serde::Serialize;

use super::files;

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All there is for this process.
    pub total: u64,
    /// What it can still have without anything being swapped out or killed.
    pub available: u64,
    /// Whether a control group, not the machine, sets the bound.
    pub limited: bool,
}

/// The process that reads.
pub(super) const OWN: &str = "self";

/// What the control groups of `process`, a number or [`OWN`], leave of the machine's memory.
pub(super) fn read(root: &Path, process: &str) -> Option<Memory> {
    within(root, groups(root, process))
}

/// What is left of the machine's memory to a group that may have `limit` bytes and has none yet.
pub(super) fn of_fresh(root: &Path, limit: impl Fn(u64) -> Option<u64>) -> Option<Memory> {
    let limit = limit(within(root, Vec::new())?.total);
    within(root, limit.map(|limit| (limit, 0)).into_iter().collect())
}

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, within limits of which so much is used.
fn within(root: &Path, groups: Vec<(u64, u64)>) -> Option<Memory> {
    let meminfo = files::text(&root.join("proc/meminfo"))?;
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal").filter(|&total| total > 0)?;
    // Kernels before 3.14 do not tell what is available.
    let free = || Some(field("MemFree")? + field("Buffers").unwrap_or(0) + field("Cached").unwrap_or(0));
    let available = field("MemAvailable").or_else(free)?.min(total);
    let mut memory = Memory { total, available, limited: false };
    for (limit, used) in groups {
        // "No limit" of version 1 is a number larger than any memory.
        if limit < total {
            memory.limited |= limit.saturating_sub(used) < memory.available;
            memory.total = memory.total.min(limit);
            memory.available = memory.available.min(limit.saturating_sub(used));
        }
    }
    Some(memory)
}

/// Limits and use of the control groups a process is in, up to the root: version 2 or 1. What is to be held back (`memory.high`) is a
/// limit as well: beyond it work all but stands still.
fn groups(root: &Path, process: &str) -> Vec<(u64, u64)> {
    let Some(its) = files::text(&root.join("proc").join(process).join("cgroup")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in its.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, limits, used, cache): (_, &[&str], _, _) = match controllers {
            "" => ("sys/fs/cgroup", &["memory.max", "memory.high"], "memory.current", "inactive_file"),
            c if c.split(',').any(|c| c == "memory") => {
                ("sys/fs/cgroup/memory", &["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file")
            }
            _ => continue,
        };
        let base = root.join(base);
        let mut group = base.join(path.trim_start_matches('/'));
        loop {
            let of = |name: &str| files::text(&group.join(name))?.parse::<u64>().ok();
            if let (Some(limit), Some(used)) = (limits.iter().filter_map(|limit| of(limit)).min(), of(used)) {
                found.push((limit, used.saturating_sub(reclaimable(&group, cache))));
            }
            if group == base || !group.pop() {
                break;
            }
        }
    }
    found
}

/// File pages that the kernel gives up first.
fn reclaimable(group: &Path, field: &str) -> u64 {
    let stat = files::text(&group.join("memory.stat")).unwrap_or_default();
    let value = stat.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok());
    value.unwrap_or(0)
}

/// The most memory this process has had resident so far, and what it has now, in bytes (`VmHWM` and `VmRSS`).
pub fn peak() -> Option<(u64, u64)> {
    let status = files::text(Path::new("/proc/self/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some((field("VmHWM:")?, field("VmRSS:")?))
}
