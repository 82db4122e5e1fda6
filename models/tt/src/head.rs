//! The task head: pooled hidden state to classes or targets.

use crate::Scalar;
use crate::form::{Activation, HeadForm};
use crate::linear::{Layers, Linear};

/// `out(activation(hidden(x)))`, or `out(x)` without a hidden layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Head<T = f32> {
    /// hidden -> hidden, a tensor train, with its activation
    pub hidden: Option<(Linear<T>, Activation)>,
    /// hidden -> outputs, dense
    pub out: Linear<T>,
}

impl<T: Scalar> Head<T> {
    /// How the graph computes it.
    pub fn form(&self) -> HeadForm {
        HeadForm {
            hidden: self.hidden.as_ref().map(|(layer, activation)| (layer.form(), *activation)),
            out: self.out.form(),
        }
    }
}

impl<T: Scalar> Layers<T> for Head<T> {
    fn layers(&self) -> Vec<(&'static str, &Linear<T>)> {
        let hidden = self.hidden.iter().map(|(layer, _)| ("hidden", layer));
        hidden.chain([("out", &self.out)]).collect()
    }

    fn layers_mut(&mut self) -> Vec<&mut Linear<T>> {
        let hidden = self.hidden.iter_mut().map(|(layer, _)| layer);
        hidden.chain([&mut self.out]).collect()
    }
}
