//! Spans of time as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A span of whole seconds, such as `90s`, `15m`, `12h` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// A text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time: write a number and s, m, h or d, such as 90s, 12h or 30d")]
pub struct NoSpan(String);

/// Seconds of each unit.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
/// Longest span, in seconds: a hundred years.
const LONGEST: u64 = 100 * 365 * 86_400;

impl Span {
    /// So many days.
    pub const fn days(days: u64) -> Self {
        Span(days * 86_400)
    }

    /// In seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = NoSpan;
    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let (_, unit) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(|| NoSpan(text.into()))?;
        let number: Option<u64> = text[..text.len() - 1].trim().parse().ok();
        let seconds = number.and_then(|number| number.checked_mul(unit)).filter(|s| (1..=LONGEST).contains(s));
        seconds.map(Span).ok_or_else(|| NoSpan(text.into()))
    }
}

impl TryFrom<String> for Span {
    type Error = NoSpan;
    fn try_from(text: String) -> Result<Self, NoSpan> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) =
            UNITS.into_iter().find(|(_, seconds)| self.0.is_multiple_of(*seconds)).unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_in_their_largest_unit() {
        for (text, seconds, shown) in
            [("90s", 90, "90s"), ("15m", 900, "15m"), ("48h", 172_800, "2d"), ("30d", 2_592_000, "30d")]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.seconds(), span.to_string().as_str()), (seconds, shown));
        }
        for text in ["", "d", "7", "-1d", "0s", "1w", "99999999999999999999d", "7é"] {
            assert!(text.parse::<Span>().unwrap_err().to_string().contains("such as 90s"), "{text}");
        }
    }
}
