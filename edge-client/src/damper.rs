//! Telling a few things of a kind, not all: what a peer can cause at will must not fill a log.

use std::collections::BTreeMap;

/// Kinds told apart; what is of yet another kind counts as one.
const KINDS: usize = 256;

/// Lets a few things of each kind through in a while. Times are Unix milliseconds, or those of any other clock.
#[derive(Clone, Debug)]
pub struct Damper {
    most: u32,
    period: u64,
    kinds: BTreeMap<String, Kind>,
}

#[derive(Clone, Debug)]
struct Kind {
    began: u64,
    told: u32,
    held_back: u64,
}

impl Default for Damper {
    /// Five of a kind in a minute.
    fn default() -> Self {
        Damper::new(5, 60_000)
    }
}

impl Damper {
    /// Lets `most` of each kind through in `period`.
    pub fn new(most: u32, period: u64) -> Self {
        Damper { most, period, kinds: BTreeMap::new() }
    }

    /// Whether another thing of `kind` is to be told at `now`, with the number of those that were not since the last.
    pub fn pass(&mut self, kind: &str, now: u64) -> Option<u64> {
        let (most, period) = (self.most, self.period);
        // A clock that was set back begins anew.
        let goes_on = |kind: &Kind| now.checked_sub(kind.began).is_some_and(|since| since < period);
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(kind) {
            // Nothing is left to be said of them.
            self.kinds.retain(|_, kind| goes_on(kind) || kind.held_back > 0);
        }
        let kind = if self.kinds.contains_key(kind) || self.kinds.len() < KINDS { kind } else { "" };
        let entry = self.kinds.entry(kind.to_string()).or_insert(Kind { began: now, told: 0, held_back: 0 });
        if !goes_on(entry) {
            (entry.began, entry.told) = (now, 0);
        }
        if entry.told >= most {
            entry.held_back += 1;
            return None;
        }
        entry.told += 1;
        Some(std::mem::take(&mut entry.held_back))
    }

    /// `text` if it is to be told at `now`, with a word on those that were not.
    pub fn damp(&mut self, kind: &str, text: &str, now: u64) -> Option<String> {
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
        let mut damper = Damper::new(2, 60);
        let mut told = |kind: &str, at| damper.pass(kind, at);
        let first: Vec<_> = (100..105).map(|at| told("a", at)).collect();
        assert_eq!(first, [Some(0), Some(0), None, None, None]);
        assert_eq!(told("b", 105), Some(0), "another kind");
        assert_eq!(told("a", 159), None);
        assert_eq!([told("a", 160), told("a", 161), told("a", 162)], [Some(4), Some(0), None]);
        assert_eq!(told("a", 10), Some(1), "the clock was set back");
    }

    #[test]
    fn kinds_without_number_share_a_place_and_make_room_for_others() {
        let mut damper = Damper::new(1, 60);
        let told = (0..10_000).filter(|kind| damper.pass(&kind.to_string(), 0).is_some()).count();
        assert_eq!(told, KINDS + 1);
        assert_eq!(damper.damp("0", "x", 61).as_deref(), Some("x"));
        let last = damper.damp("", "x", 61);
        assert_eq!(last, Some(format!("x ({} more like it were not told)", 10_000 - KINDS - 1)));
        assert_eq!([damper.pass("new", 122), damper.pass("new", 122)], [Some(0), None]);
        assert_eq!(damper.pass("newer", 122), Some(0), "told apart again");
    }
}
