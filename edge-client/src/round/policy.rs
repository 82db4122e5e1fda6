//! What the owner of a device allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the owner of a device allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Fewer examples are not trained on.
    pub min_examples: u64,
    /// Longest local work in a round, in seconds.
    pub max_seconds: Option<u64>,
    /// When nothing is trained.
    pub quiet: Option<QuietHours>,
    /// Whether bundles it lacks are fetched.
    pub fetch: bool,
    /// Whether the board is looked at before work begins.
    pub limited: bool,
}

impl Default for LocalPolicy {
    fn default() -> Self {
        LocalPolicy { min_examples: 1, max_seconds: None, quiet: None, fetch: false, limited: false }
    }
}

impl LocalPolicy {
    /// Why nothing is trained at `now` (Unix milliseconds), and until when.
    pub(super) fn objection(&self, now: u64) -> Option<(String, u64)> {
        let quiet = self.quiet.filter(|quiet| quiet.contains(now))?;
        Some((format!("quiet hours, {quiet}"), quiet.end(now)))
    }
}

/// A daily stretch of time, such as `22:00-06:00` (UTC) or `08:00-18:00+02:00`, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuietHours {
    from: u16,
    to: u16,
    offset: i16,
}

const DAY: i64 = 24 * 60;

impl QuietHours {
    fn minute(&self, now: u64) -> u16 {
        let minute = (now / 60_000) as i64 + i64::from(self.offset);
        minute.rem_euclid(DAY) as u16
    }

    /// The first end after `now`, both in Unix milliseconds.
    pub fn end(&self, now: u64) -> u64 {
        let left = (i64::from(self.to) - i64::from(self.minute(now)) - 1).rem_euclid(DAY) + 1;
        (now / 60_000 + left as u64) * 60_000
    }

    /// Whether `now` (Unix milliseconds) lies in it.
    pub fn contains(&self, now: u64) -> bool {
        let minute = self.minute(now);
        match self.from <= self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "{}{}", if offset < 0 { '-' } else { '+' }, clock(offset.unsigned_abs())),
        }
    }
}

impl FromStr for QuietHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a stretch of the day such as 22:00-06:00 or 22:00-06:00+02:00");
        let clock = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
            let (h, m) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (digits(hours) && digits(minutes) && h < 24 && m < 60).then_some(h * 60 + m)
        };
        let parse = || {
            let (from, to) = (clock(text.get(..5)?)?, clock(text.get(5..)?.strip_prefix('-')?.get(..5)?)?);
            let offset = match text.get(11..)? {
                "" => 0,
                zone => {
                    let minutes = clock(zone.get(1..)?)? as i16;
                    match zone.get(..1)? {
                        "+" => minutes,
                        "-" => -minutes,
                        _ => return None,
                    }
                }
            };
            (from != to).then_some(QuietHours { from, to, offset })
        };
        parse().ok_or_else(refuse)
    }
}

impl TryFrom<String> for QuietHours {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<QuietHours> for String {
    fn from(hours: QuietHours) -> String {
        hours.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(hour: u64, minute: u64) -> u64 {
        (20_000 * 24 * 60 + hour * 60 + minute) * 60_000
    }

    #[test]
    fn quiet_hours_may_pass_midnight_and_have_a_zone() {
        let night: QuietHours = "22:00-06:30".parse().unwrap();
        for (time, quiet) in
            [(at(22, 0), true), (at(3, 0), true), (at(6, 29), true), (at(6, 30), false), (at(21, 59), false)]
        {
            assert_eq!(night.contains(time), quiet, "{time}");
        }
        let next_day = 24 * 3_600_000;
        assert_eq!(night.end(at(22, 0)), at(6, 30) + next_day);
        assert_eq!((night.end(at(6, 29) + 59_999), night.end(at(6, 30))), (at(6, 30), at(6, 30) + next_day));
        let work: QuietHours = "08:00-18:00+02:00".parse().unwrap();
        assert_eq!(work.end(at(7, 0)), at(16, 0));
        assert!(work.contains(at(6, 0)) && !work.contains(at(16, 0)));
        let west: QuietHours = "00:00-01:00-05:30".parse().unwrap();
        assert!(west.contains(at(5, 30)) && !west.contains(at(0, 30)));
        for hours in [night, work, west] {
            assert_eq!(hours.to_string().parse::<QuietHours>().unwrap(), hours);
        }
    }

    #[test]
    fn what_is_no_stretch_of_the_day_is_refused() {
        for bad in [
            "",
            "22:00",
            "22-06",
            "25:00-06:00",
            "22:00-06:60",
            "22:00-22:00",
            "22:00-06:00Z",
            "ä2:00-06:00",
            "+1:00-06:00",
        ] {
            assert!(bad.parse::<QuietHours>().unwrap_err().contains("22:00-06:00"), "{bad}");
        }
    }
}
