//! The mean of the matrices instead of the mean of their factors: every client's tensor train enters a block sum, which
//! is rounded back to the layer's ranks.
//!
//! The sum is a binary tree: trains are added in pairs, pairs in pairs, and so on, each sum rounded to a multiple of the
//! final ranks as soon as it exceeds it. The work is linear in the number of clients and one train per level is held.
//! The error reported takes what different sums lose as unrelated; what clients have in common is not lost in the sums.
//! Layers of which not all cores train, dense factors and biases take the plain mean; for a layer of which one core
//! trains that is the same.

use std::collections::BTreeMap;
use std::ops::Range;

use fedtt_tt::config::Rank;
use fedtt_tt::tt::Truncation;
use fedtt_tt::{Parameter, Role, TtMatrix};
use ndarray::{Array3, ArrayD, ArrayViewD, Ix3};

use super::gauge::align;
use super::mean::Mean;
use super::screen::Screen;
use super::{AggregateError, Outcome, WindowRule};

/// Sums within the tree keep this many times the final ranks. The sum of trains that lie near a common one lies near its
/// tangent space, whose elements have twice its ranks.
const KEPT: usize = 2;

/// A mean of matrices shorter than this share of them has cancelled out to rounding noise.
const NOISE: f64 = 1e-12;

/// Where a train is cut into a matrix makes no difference to sums and rounding.
const CUT: usize = 1;

/// A layer whose cores all train.
struct Layer {
    name: String,
    /// positions of its cores among the parameters that train
    cores: Vec<usize>,
    inner_ranks: Vec<usize>,
    tree: Tree,
    /// sum over the clients of a bound on the norm of what they added
    scale: f64,
}

/// A sum of trains that come one by one.
#[derive(Default)]
struct Tree {
    largest_ranks: Vec<usize>,
    /// `levels[i]` holds the sum of 2^i trains or none
    levels: Vec<Option<TtMatrix<f64>>>,
    /// sum of the squared Frobenius norms of what was cut off on the way
    lost: f64,
}

impl Tree {
    fn push(&mut self, train: TtMatrix<f64>) -> fedtt_tt::Result<()> {
        let mut carry = train;
        for level in 0.. {
            match self.levels.get_mut(level) {
                None => self.levels.push(Some(carry)),
                Some(slot) => match slot.take() {
                    None => *slot = Some(carry),
                    Some(earlier) => {
                        carry = self.add(earlier, carry)?;
                        continue;
                    }
                },
            }
            break;
        }
        Ok(())
    }

    fn add(&mut self, a: TtMatrix<f64>, b: TtMatrix<f64>) -> fedtt_tt::Result<TtMatrix<f64>> {
        let sum = TtMatrix::sum(&[a, b])?;
        let ranks = &sum.shape().ranks()[1..];
        if ranks.iter().zip(&self.largest_ranks).all(|(rank, largest)| rank <= largest) {
            return Ok(sum);
        }
        let rounded = sum.rounded(&Truncation::to_rank(Rank::PerBond(self.largest_ranks.clone())));
        self.lost += rounded.error.powi(2);
        Ok(rounded.tt)
    }

    /// The sum of all, and the square of what was lost.
    fn finish(mut self) -> fedtt_tt::Result<(TtMatrix<f64>, f64)> {
        let mut sum: Option<TtMatrix<f64>> = None;
        for train in std::mem::take(&mut self.levels).into_iter().flatten() {
            sum = Some(match sum {
                None => train,
                Some(later) => self.add(train, later)?,
            });
        }
        let sum = sum.ok_or(fedtt_tt::Error::Count { what: "trains of a mean", expected: 1, found: 0 })?;
        Ok((sum, self.lost))
    }
}

/// The layers whose cores all train.
fn layers(parameters: &[Parameter]) -> Vec<Layer> {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut complete: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, parameter) in parameters.iter().enumerate() {
        if let Role::Core { count, .. } = parameter.role {
            found.entry(&parameter.layer).or_default().push(position);
            complete.insert(&parameter.layer, count);
        }
    }
    let whole =
        found.into_iter().filter(|(layer, cores)| cores.len() > CUT && complete.get(layer) == Some(&cores.len()));
    let layers = whole.map(|(name, cores)| {
        let inner_ranks: Vec<usize> = cores[1..].iter().map(|&core| parameters[core].shape[0]).collect();
        let largest_ranks = inner_ranks.iter().map(|r| r * KEPT).collect();
        Layer { name: name.into(), cores, inner_ranks, tree: Tree { largest_ranks, ..Tree::default() }, scale: 0.0 }
    });
    layers.collect()
}

impl Layer {
    fn fault(&self, source: fedtt_tt::Error) -> AggregateError {
        AggregateError::Train { layer: self.name.clone(), source }
    }

    /// The layer's train of global cores plus a change of them.
    fn train<T: Copy + Into<f64>>(
        &self,
        global: &[&ArrayD<f32>],
        change: &[ArrayD<T>],
    ) -> Result<TtMatrix<f64>, AggregateError> {
        let core = |&i: &usize| core(global[i].view(), &change[i]);
        let cores: Option<Vec<Array3<f64>>> = self.cores.iter().map(core).collect();
        let wrong = || fedtt_tt::Error::Missing { name: format!("{}.core.*, of three dimensions", self.name) };
        TtMatrix::from_cores(cores.ok_or_else(|| self.fault(wrong()))?, CUT).map_err(|e| self.fault(e))
    }
}

fn norm(core: &Array3<f64>) -> f64 {
    core.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn core<T: Copy + Into<f64>>(global: ArrayViewD<'_, f32>, change: &ArrayD<T>) -> Option<Array3<f64>> {
    let mut sum = global.mapv(f64::from).into_dimensionality::<Ix3>().ok()?;
    let change = change.view().into_dimensionality::<Ix3>().ok()?;
    if sum.dim() != change.dim() {
        return None;
    }
    sum.zip_mut_with(&change, |sum, &x| *sum += x.into());
    Some(sum)
}

/// The rule `exact`.
pub(super) struct Exact<'a> {
    global: &'a [&'a ArrayD<f32>],
    /// Squares of what was cut off, and of the mean matrices' norms, of all layers so far.
    lost: f64,
    whole: f64,
}

impl<'a> Exact<'a> {
    pub(super) fn new(global: &'a [&'a ArrayD<f32>]) -> Self {
        Exact { global, lost: 0.0, whole: 0.0 }
    }
}

impl WindowRule for Exact<'_> {
    fn truncation(&self) -> Option<f64> {
        Some(if self.whole > 0.0 { (self.lost / self.whole).sqrt() } else { 0.0 })
    }

    fn aggregate(&mut self, screen: &Screen<'_>, window: Range<usize>) -> Result<Outcome, AggregateError> {
        let (parameters, global) = (&screen.parameters[window.clone()], &self.global[window.clone()]);
        let mut layers = layers(parameters);
        let mut mean = Mean::new(parameters);
        screen.walk(window, |kept| {
            mean.add(&kept);
            for layer in &mut layers {
                let train = layer.train(global, &kept.change)?.scaled(kept.weight);
                layer.scale += train.cores().iter().map(norm).product::<f64>();
                layer.tree.push(train).map_err(|e| layer.fault(e))?;
            }
            Ok(())
        })?;

        let total = screen.total();
        let Outcome { mut change, agreement } = mean.finish();
        for mut layer in layers {
            let reference = layer.train(global, &change)?;
            let tree = std::mem::take(&mut layer.tree);
            let (sum, cut_off) = tree.finish().map_err(|e| layer.fault(e))?;
            let limit = Truncation::to_rank(Rank::PerBond(layer.inner_ranks.clone()));
            let rounded = sum.scaled(1.0 / total).rounded(&limit);
            if !rounded.norm.is_finite() {
                return Err(AggregateError::NotFinite { parameter: layer.name });
            }
            self.lost += cut_off / total.powi(2) + rounded.error.powi(2);
            self.whole += rounded.norm.powi(2);
            let cores = if rounded.norm > NOISE * layer.scale / total {
                align(&rounded.tt, &reference)
            } else {
                // Zero, whose frames are arbitrary: those of the reference can go on learning.
                let mut cores = reference.cores().to_vec();
                cores.last_mut().into_iter().for_each(|core| core.fill(0.0));
                cores
            };
            for (&position, core) in layer.cores.iter().zip(cores) {
                change[position] = core.into_dyn() - &global[position].mapv(f64::from);
            }
        }
        Ok(Outcome { change, agreement })
    }
}
