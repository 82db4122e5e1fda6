//! One linear map `y = x W + b`, with W a tensor train or a product of dense factors.

use ndarray::{Array1, Array2, ArrayD, ArrayViewD, ArrayViewMutD, Ix2};

use crate::form::LinearForm;
use crate::module::{Module, Parameter, Role};
use crate::{Scalar, TtMatrix};

/// The matrix of a [`Linear`].
#[derive(Clone, Debug, PartialEq)]
pub enum Weight<T = f32> {
    /// W = L R, halves of a tensor train cut at in|out.
    Tt(TtMatrix<T>),
    /// W = F1 .. Fk; a factor may be frozen.
    Dense(Vec<Factor<T>>),
}

/// A dense factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor<T = f32> {
    /// the matrix
    pub matrix: Array2<T>,
    /// whether the method trains it
    pub trainable: bool,
}

/// `y = x W + b` on row vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear<T = f32> {
    /// in x out
    pub weight: Weight<T>,
    /// out
    pub bias: Option<Array1<T>>,
}

impl<T: Scalar> Linear<T> {
    /// What the graph sees.
    pub fn form(&self) -> LinearForm {
        let factors = match &self.weight {
            Weight::Tt(tt) => {
                let shape = tt.shape();
                vec![(shape.rows(), shape.cut_rank()), (shape.cut_rank(), shape.columns())]
            }
            Weight::Dense(factors) => factors.iter().map(|f| f.matrix.dim()).collect(),
        };
        LinearForm { factors, bias: self.bias.is_some() }
    }

    /// The parameters, named within `layer`.
    pub fn parameters(&self, layer: &str) -> Vec<Parameter> {
        let describe = |suffix: String, shape: &[usize], role, trainable| Parameter {
            name: format!("{layer}.{suffix}"),
            layer: layer.to_string(),
            shape: shape.to_vec(),
            role,
            trainable,
        };
        let mut all: Vec<Parameter> = match &self.weight {
            Weight::Tt(tt) => {
                let count = tt.cores().len();
                let cores = tt.cores().iter().enumerate();
                cores
                    .map(|(i, c)| describe(format!("core.{i}"), c.shape(), Role::Core { index: i, count }, true))
                    .collect()
            }
            Weight::Dense(factors) => {
                let factors = factors.iter().enumerate();
                factors.map(|(i, f)| describe(i.to_string(), f.matrix.shape(), Role::Factor, f.trainable)).collect()
            }
        };
        all.extend(self.bias.iter().map(|b| describe("bias".into(), b.shape(), Role::Bias, true)));
        all
    }

    /// Values in the order of the parameters.
    pub fn values(&self) -> Vec<ArrayViewD<'_, T>> {
        let mut all: Vec<_> = match &self.weight {
            Weight::Tt(tt) => tt.cores().iter().map(|c| c.view().into_dyn()).collect(),
            Weight::Dense(factors) => factors.iter().map(|f| f.matrix.view().into_dyn()).collect(),
        };
        all.extend(self.bias.iter().map(|b| b.view().into_dyn()));
        all
    }

    /// Values to write, in the order of the parameters.
    pub fn values_mut(&mut self) -> Vec<ArrayViewMutD<'_, T>> {
        let mut all: Vec<_> = match &mut self.weight {
            Weight::Tt(tt) => tt.cores_mut().iter_mut().map(|c| c.view_mut().into_dyn()).collect(),
            Weight::Dense(factors) => factors.iter_mut().map(|f| f.matrix.view_mut().into_dyn()).collect(),
        };
        all.extend(self.bias.iter_mut().map(|b| b.view_mut().into_dyn()));
        all
    }

    /// Graph inputs in the order of the form's tensors.
    pub fn graph_inputs(&self) -> Vec<ArrayD<T>> {
        let mut all: Vec<_> = match &self.weight {
            Weight::Tt(tt) => {
                let (left, right) = tt.halves();
                vec![left.into_dyn(), right.into_dyn()]
            }
            Weight::Dense(factors) => factors.iter().map(|f| f.matrix.clone().into_dyn()).collect(),
        };
        all.extend(self.bias.iter().map(|b| b.clone().into_dyn()));
        all
    }

    /// Gradients of the parameters from those of the graph inputs.
    pub fn pullback(&self, gradients: &[ArrayViewD<'_, T>]) -> Vec<ArrayD<T>> {
        match &self.weight {
            Weight::Tt(tt) => {
                let half = |i: usize| {
                    gradients[i].view().into_dimensionality::<Ix2>().expect("the gradient of a half is a matrix")
                };
                let mut all: Vec<_> = tt.pullback(half(0), half(1)).into_iter().map(|g| g.into_dyn()).collect();
                all.extend(gradients[2..].iter().map(|g| g.to_owned()));
                all
            }
            Weight::Dense(_) => gradients.iter().map(|g| g.to_owned()).collect(),
        }
    }

    /// The dense matrix in x out.
    pub fn dense(&self) -> Array2<T> {
        match &self.weight {
            Weight::Tt(tt) => tt.dense(),
            Weight::Dense(factors) => {
                let mut factors = factors.iter().map(|f| &f.matrix);
                let first = factors.next().cloned().unwrap_or_else(|| Array2::zeros((0, 0)));
                factors.fold(first, |product, factor| product.dot(factor))
            }
        }
    }

    /// Multiplies the map by `factor`, by its last core (or factor) and its bias alone: with 0 the map is zero while the gradient of
    /// its last core is not.
    pub fn scale_last(&mut self, factor: T) {
        match &mut self.weight {
            Weight::Tt(tt) => tt.cores_mut().last_mut().into_iter().for_each(|c| c.mapv_inplace(|x| x * factor)),
            Weight::Dense(factors) => {
                factors.last_mut().into_iter().for_each(|f| f.matrix.mapv_inplace(|x| x * factor))
            }
        }
        self.bias.iter_mut().for_each(|b| b.mapv_inplace(|x| x * factor));
    }
}

/// Several named layers as one module: the shared body of adapters and heads.
pub(crate) trait Layers<T: Scalar>: Send + Sync {
    fn layers(&self) -> Vec<(&'static str, &Linear<T>)>;
    fn layers_mut(&mut self) -> Vec<&mut Linear<T>>;
}

impl<T: Scalar, L: Layers<T>> Module<T> for L {
    fn parameters(&self) -> Vec<Parameter> {
        self.layers().into_iter().flat_map(|(name, layer)| layer.parameters(name)).collect()
    }

    fn values(&self) -> Vec<ArrayViewD<'_, T>> {
        self.layers().into_iter().flat_map(|(_, layer)| layer.values()).collect()
    }

    fn values_mut(&mut self) -> Vec<ArrayViewMutD<'_, T>> {
        self.layers_mut().into_iter().flat_map(|layer| layer.values_mut()).collect()
    }

    fn graph_inputs(&self) -> Vec<ArrayD<T>> {
        self.layers().into_iter().flat_map(|(_, layer)| layer.graph_inputs()).collect()
    }

    fn pullback(&self, graph_gradients: &[ArrayViewD<'_, T>]) -> Vec<ArrayD<T>> {
        let mut rest = graph_gradients;
        let mut all = Vec::new();
        for (_, layer) in self.layers() {
            let form = layer.form();
            let (own, others) = rest.split_at(form.factors.len() + usize::from(form.bias));
            all.extend(layer.pullback(own));
            rest = others;
        }
        all
    }
}
