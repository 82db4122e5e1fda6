//! What goes wrong on virtual clients, drawn by seed, round and client.

use std::str::FromStr;

use fedtt_wire::WireError;
use fedtt_wire::message::Update;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Shares of the updates that go wrong, each in its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Never sent.
    pub dropout: f64,
    /// Sent after the round is over.
    pub delay: f64,
    /// Filled with NaN.
    pub nan: f64,
    /// With its sign flipped, ten times as large: an attack.
    pub flip: f64,
    /// Sent twice.
    pub duplicate: f64,
}

/// What goes wrong with one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never sent.
    Dropout,
    /// Sent after the round is over.
    Delay,
    /// Filled with NaN.
    Nan,
    /// With its sign flipped, ten times as large.
    Flip,
    /// Sent twice.
    Duplicate,
}

impl FromStr for Faults {
    type Err = String;

    /// `dropout=0.1,flip=0.05`
    fn from_str(words: &str) -> Result<Self, String> {
        let mut faults = Faults::default();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (kind, share) = word.split_once('=').ok_or_else(|| format!("`{word}` is not KIND=SHARE"))?;
            let value: f64 = share.parse().map_err(|_| format!("`{share}` is not a number"))?;
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("`{share}` is not within 0 to 1"));
            }
            *match kind {
                "dropout" => &mut faults.dropout,
                "delay" => &mut faults.delay,
                "nan" => &mut faults.nan,
                "flip" => &mut faults.flip,
                "duplicate" => &mut faults.duplicate,
                _ => return Err(format!("`{kind}` is not dropout, delay, nan, flip or duplicate")),
            } = value;
        }
        let Faults { dropout, delay, nan, flip, duplicate } = faults;
        if dropout + delay + nan + flip + duplicate > 1.0 {
            return Err("the shares sum to more than 1".into());
        }
        Ok(faults)
    }
}

impl Faults {
    /// What goes wrong for `client` in an attempt at `round`, if anything.
    pub fn draw(&self, seed: u64, round: u32, attempt: u32, client: usize) -> Option<Fault> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(attempt) << 32) ^ 0xfa17);
        rng.set_stream((u64::from(round) << 32) | client as u64);
        let mut at: f64 = rng.random();
        let kinds = [
            (self.dropout, Fault::Dropout),
            (self.delay, Fault::Delay),
            (self.nan, Fault::Nan),
            (self.flip, Fault::Flip),
            (self.duplicate, Fault::Duplicate),
        ];
        kinds.into_iter().find_map(|(share, fault)| {
            at -= share;
            (at < 0.0).then_some(fault)
        })
    }
}

/// Spoils an update as the fault has it.
///
/// # Errors
/// When the update is spoilt already.
pub(super) fn spoil(update: &mut Update, fault: Fault) -> Result<(), WireError> {
    let factor = match fault {
        Fault::Nan => f32::NAN,
        Fault::Flip => -10.0,
        Fault::Dropout | Fault::Delay | Fault::Duplicate => return Ok(()),
    };
    for tensor in &mut update.tensors {
        let values = tensor.decode("", &[tensor.data.len() / tensor.encoding.width()])?;
        *tensor = EncodedTensor::encode((values * factor).view(), Encoding::F32, Some(false));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_asked() {
        let faults: Faults = "dropout=0.2,flip=0.1".parse().unwrap();
        let drawn: Vec<Option<Fault>> = (0..5000).map(|i| faults.draw(3, i / 100, 0, (i % 100) as usize)).collect();
        let share = |fault| drawn.iter().filter(|f| **f == Some(fault)).count() as f64 / 5000.0;
        assert!((share(Fault::Dropout) - 0.2).abs() < 0.03 && (share(Fault::Flip) - 0.1).abs() < 0.02);
        assert!(share(Fault::Nan) == 0.0 && faults.draw(3, 7, 0, 7) == faults.draw(3, 7, 0, 7));
    }

    #[test]
    fn shares_that_make_no_sense_are_refused() {
        for words in ["dropout", "dropout=2", "dropout=x", "fire=0.1", "dropout=0.6,nan=0.6"] {
            assert!(words.parse::<Faults>().is_err(), "{words}");
        }
    }
}
