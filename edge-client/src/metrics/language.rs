//! How surprising a text is to a language model.

use serde::{Deserialize, Serialize};

/// Cross-entropy of the tokens that were predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Language {
    /// Mean negative log-likelihood, in nats.
    pub nats_per_token: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Tokens predicted; the first of a text is not.
    pub tokens: usize,
}

impl Language {
    /// From the negative log-likelihoods' sum, in nats, over `tokens`.
    pub fn of(total_nats: f64, tokens: usize) -> Self {
        let nats_per_token = total_nats / tokens.max(1) as f64;
        Language { nats_per_token, perplexity: nats_per_token.exp(), tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::Language;

    #[test]
    fn by_hand() {
        // Four tokens at probability 1/8 each.
        let m = Language::of(4.0 * 8f64.ln(), 4);
        assert!((m.perplexity - 8.0).abs() < 1e-12);
        assert!((m.nats_per_token - 8f64.ln()).abs() < 1e-12);
    }
}
