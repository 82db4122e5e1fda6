/// The field reports as they are stored: a header line `site label split text`, then one tab-separated report per line.
pub const FIELD_REPORTS_TSV: &str = include_str!("../data/field_reports.tsv");

/// The six labels, in alphabetical order.
pub const LABELS: [&str; 6] = ["electrical", "logistics", "mechanical", "network", "safety", "sensor"];

/// The eight sites, in alphabetical order.
pub const SITES: [&str; 8] = [
    "cold_store",
    "dairy_farm",
    "greenhouse",
    "harbour_crane",
    "pumping_station",
    "rail_signalling",
    "telecom_mast",
    "wind_farm",
];

/// Which part of the set a report belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// For fine-tuning.
    Train,
    /// Held out, a quarter of each site and label.
    Test,
}

/// One field report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Report {
    /// Where it was written; one of [`SITES`].
    pub site: &'static str,
    /// What is at fault or has to be acted on; one of [`LABELS`].
    pub label: &'static str,
    /// Train or test.
    pub split: Split,
    /// The report.
    pub text: &'static str,
}

/// All field reports, in the order of [`FIELD_REPORTS_TSV`]: site by site.
pub fn field_reports() -> impl Iterator<Item = Report> {
    FIELD_REPORTS_TSV.lines().skip(1).filter_map(|line| {
        let mut fields = line.splitn(4, '\t');
        let (site, label, split, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let split = match split {
            "train" => Split::Train,
            "test" => Split::Test,
            _ => return None,
        };
        Some(Report { site, label, split, text })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn share(of: impl Fn(&Report) -> bool, among: impl Fn(&Report) -> bool) -> f64 {
        let rows: Vec<Report> = field_reports().filter(among).collect();
        rows.iter().filter(|r| of(r)).count() as f64 / rows.len() as f64
    }

    #[test]
    fn every_line_is_a_report() {
        assert_eq!(FIELD_REPORTS_TSV.lines().next(), Some("site\tlabel\tsplit\ttext"));
        assert_eq!(field_reports().count(), FIELD_REPORTS_TSV.lines().count() - 1);
        assert!(field_reports().count() >= 720);
        for r in field_reports() {
            assert!(SITES.contains(&r.site), "{r:?}");
            assert!(LABELS.contains(&r.label), "{r:?}");
            assert!(!r.text.contains('\t') && !r.text.contains('"') && r.text.trim() == r.text, "{r:?}");
            assert!((6..=40).contains(&r.text.split_whitespace().count()), "{r:?}");
        }
    }

    #[test]
    fn no_two_reports_share_a_quarter_of_their_word_trigrams() {
        let mut held_by: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        let mut sizes = Vec::new();
        for (i, r) in field_reports().enumerate() {
            let lower = r.text.to_lowercase();
            let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            let words: Vec<String> = words.map(String::from).collect();
            let trigrams: HashSet<Vec<String>> = words.windows(3).map(<[String]>::to_vec).collect();
            sizes.push(trigrams.len());
            trigrams.into_iter().for_each(|t| held_by.entry(t).or_default().push(i));
        }
        let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
        for holders in held_by.values() {
            for (k, &i) in holders.iter().enumerate() {
                holders[k + 1..].iter().for_each(|&j| *shared.entry((i, j)).or_default() += 1);
            }
        }
        let all: Vec<Report> = field_reports().collect();
        for ((i, j), n) in shared {
            assert!(4 * n <= sizes[i].min(sizes[j]), "{} | {}", all[i].text, all[j].text);
        }
    }

    #[test]
    fn both_splits_hold_every_site_and_label_in_proportion() {
        for label in LABELS {
            let held_out = share(|r| r.split == Split::Test, |r| r.label == label);
            assert!((0.2..=0.3).contains(&held_out), "{label}: {held_out}");
        }
        for site in SITES {
            let held_out = share(|r| r.split == Split::Test, |r| r.site == site);
            assert!((0.2..=0.3).contains(&held_out), "{site}: {held_out}");
        }
    }

    #[test]
    fn sites_differ_in_their_mix() {
        for label in LABELS {
            let shares = SITES.map(|site| share(|r| r.label == label, |r| r.site == site));
            let most = shares.iter().copied().fold(0.0, f64::max);
            let least = shares.iter().copied().fold(1.0, f64::min);
            assert!(most > 2.0 * least, "{label}: {shares:?}");
        }
    }

    #[test]
    fn no_label_and_no_site_dominates() {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for r in field_reports() {
            *counts.entry(r.label).or_default() += 1;
            *counts.entry(r.site).or_default() += 1;
        }
        assert_eq!(counts.len(), LABELS.len() + SITES.len());
        assert!(counts.values().all(|n| (80..=160).contains(n)), "{counts:?}");
    }
}
