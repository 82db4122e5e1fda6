//! Who holds which examples.

use std::collections::BTreeMap;
use std::str::FromStr;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use serde::{Deserialize, Serialize};

/// How examples are dealt to clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// Shuffled, in equal parts.
    Iid,
    /// Each label's examples in shares drawn from a symmetric Dirichlet distribution (Hsu et al. 2019, "Measuring the
    /// effects of non-identical data distribution"): the smaller alpha, the fewer clients hold a label. Drawn anew until every
    /// client holds ten examples (Li et al. 2022, "Federated learning on non-IID data silos"), or a tenth of the mean if that is
    /// less.
    Dirichlet(f64),
    /// Sorted by label, cut into so many shards a client, dealt at random (McMahan et al. 2017).
    Shards(usize),
    /// One client for each value of a column; with fewer clients than values, the values are dealt to them, large ones first.
    Column(String),
    /// Shuffled, in parts whose sizes are drawn from a symmetric Dirichlet distribution.
    Quantity(f64),
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (kind, argument) = word.split_once(':').unwrap_or((word, ""));
        let alpha = || match argument.parse::<f64>() {
            Ok(alpha) if alpha > 0.0 && alpha.is_finite() => Ok(alpha),
            _ => Err(format!("`{word}` needs a concentration above 0, as in `{kind}:0.1`")),
        };
        match kind {
            "iid" if argument.is_empty() => Ok(Partition::Iid),
            "dirichlet" => Ok(Partition::Dirichlet(alpha()?)),
            "quantity" => Ok(Partition::Quantity(alpha()?)),
            "shards" => match argument.parse() {
                Ok(shards) if shards > 0 => Ok(Partition::Shards(shards)),
                _ => Err(format!("`{word}` needs a number of shards, as in `shards:2`")),
            },
            "column" if !argument.is_empty() => Ok(Partition::Column(argument.to_string())),
            _ => Err(format!("`{word}` is not iid, dirichlet:ALPHA, shards:N, column:NAME or quantity:ALPHA")),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> String {
        match partition {
            Partition::Iid => "iid".into(),
            Partition::Dirichlet(alpha) => format!("dirichlet:{alpha}"),
            Partition::Shards(shards) => format!("shards:{shards}"),
            Partition::Column(name) => format!("column:{name}"),
            Partition::Quantity(alpha) => format!("quantity:{alpha}"),
        }
    }
}

/// Examples that every client of a Dirichlet split holds, where there are plenty, and the splits drawn at most to find one.
const FEWEST: usize = 10;
const DRAWS: usize = 100;

/// Positive shares that sum to 1.
fn dirichlet(alpha: f64, n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let Ok(gamma) = Gamma::new(alpha, 1.0) else { return vec![1.0 / n as f64; n] };
    let draws: Vec<f64> = (0..n).map(|_| gamma.sample(rng)).collect();
    let sum: f64 = draws.iter().sum();
    if sum > 0.0 {
        return draws.into_iter().map(|x| x / sum).collect();
    }
    // All so small that they vanish: one takes it all.
    let lucky = rand::Rng::random_range(rng, 0..n);
    (0..n).map(|i| f64::from(u8::from(i == lucky))).collect()
}

/// Cuts `examples` at the running sums of `shares`.
fn cut(examples: &[usize], shares: &[f64]) -> Vec<Vec<usize>> {
    let mut sum = 0.0;
    let mut from = 0;
    let mut parts = Vec::with_capacity(shares.len());
    for (i, share) in shares.iter().enumerate() {
        sum += share;
        let to = if i + 1 == shares.len() { examples.len() } else { (sum * examples.len() as f64).round() as usize };
        let to = to.clamp(from, examples.len());
        parts.push(examples[from..to].to_vec());
        from = to;
    }
    parts
}

/// Each label's examples in shares of their own.
fn skewed<'a>(
    by_label: impl Iterator<Item = &'a Vec<usize>>,
    alpha: f64,
    clients: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut parts = vec![Vec::new(); clients];
    for examples in by_label {
        let shares = dirichlet(alpha, clients, rng);
        parts.iter_mut().zip(cut(examples, &shares)).for_each(|(part, more)| part.extend(more));
    }
    parts
}

impl Partition {
    /// Deals the examples with these labels, and for [`Partition::Column`] these groups, to `clients`. Every example goes to
    /// exactly one client; a client left with none is given one from the richest.
    pub fn deal(&self, labels: &[String], groups: &[String], clients: usize, seed: u64) -> Vec<Vec<usize>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut all: Vec<usize> = (0..labels.len()).collect();
        all.shuffle(&mut rng);
        let mut by_label: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        all.iter().for_each(|&i| by_label.entry(&labels[i]).or_default().push(i));
        let mut parts = vec![Vec::new(); clients];
        match self {
            Partition::Iid => parts = cut(&all, &vec![1.0 / clients as f64; clients]),
            Partition::Quantity(alpha) => parts = cut(&all, &dirichlet(*alpha, clients, &mut rng)),
            Partition::Dirichlet(alpha) => {
                let fewest = FEWEST.min(labels.len() / clients.max(1) / 10);
                let smallest = |parts: &[Vec<usize>]| parts.iter().map(Vec::len).min().unwrap_or_default();
                let mut draw = || skewed(by_label.values(), *alpha, clients, &mut rng);
                parts = draw();
                for _ in 1..DRAWS {
                    if smallest(&parts) >= fewest {
                        break;
                    }
                    let again = draw();
                    if smallest(&again) > smallest(&parts) {
                        parts = again;
                    }
                }
            }
            Partition::Shards(each) => {
                let sorted: Vec<usize> = by_label.into_values().flatten().collect();
                let count = each * clients;
                let mut shards = cut(&sorted, &vec![1.0 / count as f64; count]);
                shards.shuffle(&mut rng);
                for (i, shard) in shards.into_iter().enumerate() {
                    parts[i % clients].extend(shard);
                }
            }
            Partition::Column(_) => {
                let mut by_group: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
                (0..labels.len()).for_each(|i| by_group.entry(&groups[i]).or_default().push(i));
                let mut by_size: Vec<Vec<usize>> = by_group.into_values().collect();
                by_size.sort_by_key(|group| std::cmp::Reverse(group.len()));
                for group in by_size {
                    if let Some(part) = parts.iter_mut().min_by_key(|part| part.len()) {
                        part.extend(group);
                    }
                }
            }
        }
        while let Some(empty) = parts.iter().position(Vec::is_empty) {
            let richest = (0..parts.len()).max_by_key(|&i| parts[i].len()).filter(|&i| parts[i].len() > 1);
            let Some(spare) = richest.and_then(|i| parts[i].pop()) else { break };
            parts[empty].push(spare);
        }
        parts.iter_mut().for_each(|part| part.sort_unstable());
        parts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        (0..600).map(|i| format!("label{}", i % 6)).collect()
    }

    fn deal(word: &str, clients: usize, seed: u64) -> Vec<Vec<usize>> {
        let groups: Vec<String> = (0..600).map(|i| format!("site{}", i * i % 7)).collect();
        word.parse::<Partition>().unwrap().deal(&labels(), &groups, clients, seed)
    }

    /// The largest share of one label in each part, averaged over parts by size.
    fn skew(parts: &[Vec<usize>]) -> f64 {
        let largest = |part: &Vec<usize>| (0..6).map(|l| part.iter().filter(|&&i| i % 6 == l).count()).max().unwrap();
        parts.iter().map(largest).sum::<usize>() as f64 / 600.0
    }

    #[test]
    fn every_example_goes_to_one_client_and_no_client_goes_without() {
        for word in ["iid", "dirichlet:0.1", "dirichlet:0.001", "shards:2", "column:site", "quantity:0.2"] {
            for clients in [1, 3, 10, 200] {
                let parts = deal(word, clients, 1);
                let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
                all.sort_unstable();
                assert_eq!(all, (0..600).collect::<Vec<_>>(), "{word}");
                assert!(parts.len() == clients && parts.iter().all(|p| !p.is_empty()), "{word} {clients}");
                assert_eq!(parts, deal(word, clients, 1));
            }
            assert!(word == "column:site" || deal(word, 5, 1) != deal(word, 5, 2), "{word}");
        }
    }

    #[test]
    fn each_is_skewed_as_it_says() {
        assert!(skew(&deal("iid", 10, 0)) < 0.3);
        assert!(skew(&deal("dirichlet:0.1", 10, 0)) > 0.6);
        assert!(skew(&deal("dirichlet:100", 10, 0)) < 0.3);
        assert!(skew(&deal("shards:1", 6, 0)) > 0.95);
        let sizes: Vec<usize> = deal("quantity:0.2", 10, 0).iter().map(Vec::len).collect();
        assert!(sizes.iter().max().unwrap() > &(5 * sizes.iter().min().unwrap()), "{sizes:?}");
    }

    #[test]
    fn nobody_is_left_with_a_handful_where_there_are_plenty() {
        for seed in 0..20 {
            assert!(deal("dirichlet:0.1", 5, seed).iter().all(|part| part.len() >= 10), "{seed}");
        }
    }

    #[test]
    fn groups_stay_together() {
        for part in deal("column:site", 7, 0) {
            let sites: std::collections::BTreeSet<usize> = part.iter().map(|i| i * i % 7).collect();
            assert_eq!(sites.len(), 1);
        }
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for word in ["", "iid:3", "dirichlet", "dirichlet:0", "dirichlet:x", "shards:0", "column:", "random"] {
            assert!(word.parse::<Partition>().is_err(), "{word}");
        }
        for word in ["iid", "dirichlet:0.1", "shards:2", "column:speaker", "quantity:0.5"] {
            assert_eq!(String::from(word.parse::<Partition>().unwrap()), word);
        }
    }
}
