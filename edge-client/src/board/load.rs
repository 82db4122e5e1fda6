//! What the processors do, for this process and for others.

use std::path::Path;

use serde::Serialize;

use super::files;

/// What the processors do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Tasks that ran or wanted to, mean of the last minute.
    pub minute: f64,
    /// Processors that are switched on.
    pub processors: usize,
    /// Ticks that processors have been there for since the start.
    #[serde(skip)]
    pub(super) total: u64,
    /// Of those, ticks they were busy.
    #[serde(skip)]
    pub(super) busy: u64,
    /// Of those, ticks they worked for this process and the one it trains in.
    #[serde(skip)]
    pub(super) own: u64,
}

impl Load {
    /// Share of the processors' time, 0 to 1, that others than this process and its own have taken since `before`; `None` where too
    /// little time has passed to tell.
    pub fn others_since(&self, before: &Load) -> Option<f64> {
        let since = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let total = since(self.total, before.total);
        let others = since(self.busy, before.busy) - since(self.own, before.own);
        (total >= LEAST_TICKS).then(|| (others / total).clamp(0.0, 1.0))
    }
}

/// A fifth of a second of one processor.
const LEAST_TICKS: f64 = 20.0;

/// `/proc/loadavg`, the first line of `/proc/stat` and what the processes' own `stat` say, in ticks.
pub(super) fn read(root: &Path) -> Option<Load> {
    let minute = files::text(&root.join("proc/loadavg"))?.split_whitespace().next()?.parse().ok()?;
    let stat = files::text(&root.join("proc/stat"))?;
    let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted among the first two already.
    let ticks = ticks.get(..8.min(ticks.len()))?;
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let total: u64 = ticks.iter().sum();
    let sensible = |minute: &f64| minute.is_finite() && *minute >= 0.0;
    let minute = Some(minute).filter(sensible)?;
    Some(Load { minute, processors: processors.max(1), total, busy: total - idle, own: own(root) })
}

/// Ticks of this process, of its children that have ended and of those at work.
fn own(root: &Path) -> u64 {
    let ticks = |path: &Path| Process::parse(&files::text(path)?);
    let Some(this) = ticks(&root.join("proc/self/stat")) else { return 0 };
    let others = files::entries(&root.join("proc"), "").into_iter();
    let processes = others.filter(|path| files::name(path).bytes().all(|byte| byte.is_ascii_digit()));
    let children = processes.filter_map(|path| ticks(&path.join("stat"))).filter(|process| process.parent == this.id);
    children.map(|child| child.ticks).sum::<u64>() + this.ticks
}

/// What a process's `stat` says.
struct Process {
    id: u64,
    parent: u64,
    /// Its own and those of its children that have ended.
    ticks: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name in brackets may hold anything; fields are counted from behind it, the state being the third.
        let (id, rest) = (stat.split_once(' ')?.0, stat.rsplit(')').next()?);
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = [14, 15, 16, 17].into_iter().map(field).sum::<Option<u64>>()?;
        Some(Process { id: id.parse().ok()?, parent: field(4)?, ticks })
    }
}
