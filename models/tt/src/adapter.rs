//! The adapters: what is grafted at a site.

use std::fmt::Debug;

use crate::Scalar;
use crate::form::{Activation, AdapterForm};
use crate::linear::{Layers, Linear};
use crate::module::Module;

/// An adapter of any method. The method is the choice of weights: tensor trains or dense matrices in a
/// [`Bottleneck`]; a tensor train, two dense factors, the first frozen or not, or three, the inner one trained, in a [`Branch`].
pub trait Adapter<T: Scalar = f32>: Module<T> + Debug {
    /// How the graph computes it.
    fn form(&self) -> AdapterForm;

    /// A copy.
    fn clone_box(&self) -> Box<dyn Adapter<T>>;
}

impl<T: Scalar> Clone for Box<dyn Adapter<T>> {
    fn clone(&self) -> Self {
        self.clone_box()
    }
}

/// `h + scaling * up(activation(down(h)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottleneck<T = f32> {
    /// hidden -> bottleneck
    pub down: Linear<T>,
    /// between the two
    pub activation: Activation,
    /// bottleneck -> hidden
    pub up: Linear<T>,
    /// factor on the adapter's output
    pub scaling: f32,
}

/// `linear(x) + scaling * map(x)` beside a frozen projection: LoRA, with A the first factor and B the second, or the halves of
/// a tensor train in their places, or a core between two frozen ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch<T = f32> {
    /// the projection's in -> out
    pub map: Linear<T>,
    /// factor on the branch
    pub scaling: f32,
}

impl<T: Scalar> Layers<T> for Bottleneck<T> {
    fn layers(&self) -> Vec<(&'static str, &Linear<T>)> {
        vec![("down", &self.down), ("up", &self.up)]
    }

    fn layers_mut(&mut self) -> Vec<&mut Linear<T>> {
        vec![&mut self.down, &mut self.up]
    }
}

impl<T: Scalar> Layers<T> for Branch<T> {
    fn layers(&self) -> Vec<(&'static str, &Linear<T>)> {
        vec![("map", &self.map)]
    }

    fn layers_mut(&mut self) -> Vec<&mut Linear<T>> {
        vec![&mut self.map]
    }
}

impl<T: Scalar> Adapter<T> for Bottleneck<T> {
    fn form(&self) -> AdapterForm {
        AdapterForm::Bottleneck {
            down: self.down.form(),
            activation: self.activation,
            up: self.up.form(),
            scaling: self.scaling,
        }
    }

    fn clone_box(&self) -> Box<dyn Adapter<T>> {
        Box::new(self.clone())
    }
}

impl<T: Scalar> Adapter<T> for Branch<T> {
    fn form(&self) -> AdapterForm {
        AdapterForm::Branch { map: self.map.form(), scaling: self.scaling }
    }

    fn clone_box(&self) -> Box<dyn Adapter<T>> {
        Box::new(self.clone())
    }
}
