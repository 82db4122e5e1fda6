//! Counts of what was refused, by whom: told often enough to be seen, seldom enough that no flood fills a log.

use std::collections::BTreeMap;

/// Most that are told apart.
const MOST: usize = 256;

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
    others: u64,
}

impl Tally {
    /// Counts one more of `who`, or of whatever else is told apart; its number where it is worth telling: the first, the second, the fourth, and so on.
    pub fn note(&mut self, who: &str) -> Option<u64> {
        let known = self.counts.contains_key(who) || self.counts.len() < MOST;
        let count = if known { self.counts.entry(who.to_string()).or_default() } else { &mut self.others };
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_seldom_and_takes_no_room() {
        let mut tally = Tally::default();
        let told: Vec<u64> = (0..1000).filter_map(|_| tally.note("mallory")).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(tally.note("trudy"), Some(1));
        let told = (0..100_000).filter(|n| tally.note(&format!("sybil-{n}")).is_some()).count();
        assert!(told < MOST + 20 && tally.counts.len() == MOST, "{told}");
    }
}
