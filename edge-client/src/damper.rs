//! Telling a few things of a kind, not all: what a peer can cause at will must not fill a log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kinds told apart; what is of yet another kind counts as one.
const KINDS: usize = 256;

/// Lets a few things of each kind through in a while.
#[derive(Debug)]
pub struct Damper {
    most: u32,
    period: Duration,
    kinds: BTreeMap<String, Kind>,
}

#[derive(Debug)]
struct Kind {
    began: Instant,
    told: u32,
    held_back: u64,
}

impl Default for Damper {
    /// Five of a kind in a minute.
    fn default() -> Self {
        Damper::new(5, Duration::from_secs(60))
    }
}

impl Damper {
    /// Lets `most` of each kind through in `period`.
    pub fn new(most: u32, period: Duration) -> Self {
        Damper { most, period, kinds: BTreeMap::new() }
    }

    /// Whether another thing of `kind` is to be told at `now`, with the number of those that were not since the last.
    pub fn pass(&mut self, kind: &str, now: Instant) -> Option<u64> {
        let kind = if self.kinds.contains_key(kind) || self.kinds.len() < KINDS { kind } else { "" };
        let fresh = || Kind { began: now, told: 0, held_back: 0 };
        let entry = self.kinds.entry(kind.to_string()).or_insert_with(fresh);
        if now.saturating_duration_since(entry.began) >= self.period {
            (entry.began, entry.told) = (now, 0);
        }
        if entry.told >= self.most {
            entry.held_back += 1;
            return None;
        }
        entry.told += 1;
        Some(std::mem::take(&mut entry.held_back))
    }

    /// `text` if it is to be told at `now`, with a word on those that were not.
    pub fn damp(&mut self, kind: &str, text: &str, now: Instant) -> Option<String> {
        match self.pass(kind, now)? {
            0 => Some(text.to_string()),
            held_back => Some(format!("{text} ({held_back} more like it were not told)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_a_kind_are_told_in_a_while_and_the_others_counted() {
        let mut damper = Damper::new(2, Duration::from_secs(60));
        let begin = Instant::now();
        let mut told = |kind: &str, second| damper.pass(kind, begin + Duration::from_secs(second));
        let first: Vec<_> = (0..5).map(|second| told("a", second)).collect();
        assert_eq!(first, [Some(0), Some(0), None, None, None]);
        assert_eq!(told("b", 5), Some(0), "another kind");
        assert_eq!(told("a", 59), None);
        assert_eq!([told("a", 60), told("a", 61), told("a", 62)], [Some(4), Some(0), None]);
    }

    #[test]
    fn kinds_without_number_share_a_place() {
        let mut damper = Damper::new(1, Duration::from_secs(60));
        let now = Instant::now();
        let told = (0..10_000).filter(|kind| damper.pass(&kind.to_string(), now).is_some()).count();
        assert_eq!(told, KINDS + 1);
        assert_eq!(damper.damp("0", "x", now + Duration::from_secs(61)).as_deref(), Some("x"));
        let last = damper.damp("", "x", now + Duration::from_secs(61));
        assert_eq!(last, Some(format!("x ({} more like it were not told)", 10_000 - KINDS - 1)));
    }
}
