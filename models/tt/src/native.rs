//! Adapter and head computed natively from their forms and graph inputs: the oracle for the graph.
//!
//! Rows of `x` are positions (or examples): n x in.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, Axis, Ix1, Ix2, Zip};

use crate::Scalar;
use crate::form::{Activation, AdapterForm, HeadForm, LinearForm};

/// Gradients of a module's input and of its graph inputs, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// of `x`, n x in
    pub x: Array2<T>,
    /// of the graph inputs
    pub inputs: Vec<ArrayD<T>>,
}

/// What an adapter yields at its site, n x out: `h + scaling * up(activation(down(h)))` of a bottleneck; of a branch
/// only its own part, `scaling * map(x)`.
///
/// # Panics
/// If `inputs` or `x` have not the form's shapes.
pub fn adapter_forward<T: Scalar>(form: &AdapterForm, inputs: &[ArrayD<T>], x: ArrayView2<'_, T>) -> Array2<T> {
    match form {
        AdapterForm::Bottleneck { down, activation, up, scaling } => {
            let (down, up) = (Bound::of(down, inputs), Bound::of(up, &inputs[count(down)..]));
            let inner = down.forward(x).mapv(|z| activate(*activation, z));
            up.forward(inner.view()) * T::of(f64::from(*scaling)) + x
        }
        AdapterForm::Branch { map, scaling } => Bound::of(map, inputs).forward(x) * T::of(f64::from(*scaling)),
    }
}

/// Gradients of [`adapter_forward`], given that of its result.
///
/// # Panics
/// If `inputs`, `x` or `upstream` have not the form's shapes.
pub fn adapter_backward<T: Scalar>(
    form: &AdapterForm,
    inputs: &[ArrayD<T>],
    x: ArrayView2<'_, T>,
    upstream: ArrayView2<'_, T>,
) -> Gradients<T> {
    match form {
        AdapterForm::Bottleneck { down, activation, up, scaling } => {
            let (down, up) = (Bound::of(down, inputs), Bound::of(up, &inputs[count(down)..]));
            let scaled = &upstream * T::of(f64::from(*scaling));
            let mut gradients = through_two(&down, *activation, &up, x, scaled.view());
            gradients.x += &upstream;
            gradients
        }
        AdapterForm::Branch { map, scaling } => {
            Bound::of(map, inputs).backward(x, (&upstream * T::of(f64::from(*scaling))).view())
        }
    }
}

/// What a head yields, n x outputs.
///
/// # Panics
/// If `inputs` or `x` have not the form's shapes.
pub fn head_forward<T: Scalar>(form: &HeadForm, inputs: &[ArrayD<T>], x: ArrayView2<'_, T>) -> Array2<T> {
    match &form.hidden {
        None => Bound::of(&form.out, inputs).forward(x),
        Some((hidden, activation)) => {
            let inner = Bound::of(hidden, inputs).forward(x).mapv(|z| activate(*activation, z));
            Bound::of(&form.out, &inputs[count(hidden)..]).forward(inner.view())
        }
    }
}

/// Gradients of [`head_forward`], given that of its result.
///
/// # Panics
/// If `inputs`, `x` or `upstream` have not the form's shapes.
pub fn head_backward<T: Scalar>(
    form: &HeadForm,
    inputs: &[ArrayD<T>],
    x: ArrayView2<'_, T>,
    upstream: ArrayView2<'_, T>,
) -> Gradients<T> {
    match &form.hidden {
        None => Bound::of(&form.out, inputs).backward(x, upstream),
        Some((hidden, activation)) => {
            let out = Bound::of(&form.out, &inputs[count(hidden)..]);
            through_two(&Bound::of(hidden, inputs), *activation, &out, x, upstream)
        }
    }
}

/// Mean cross-entropy of `logits`, n x classes, and its gradient.
///
/// # Panics
/// If a label is not a class.
pub fn cross_entropy<T: Scalar>(logits: ArrayView2<'_, T>, labels: &[usize]) -> (T, Array2<T>) {
    let n = T::of(labels.len() as f64);
    let mut loss = T::zero();
    let mut gradient = logits.to_owned();
    for (mut row, &label) in gradient.rows_mut().into_iter().zip(labels) {
        let largest = row.iter().copied().fold(T::neg_infinity(), T::max);
        row.mapv_inplace(|z| (z - largest).exp());
        let sum = row.sum();
        row.mapv_inplace(|e| e / sum);
        loss -= row[label].ln() / n;
        row[label] -= T::one();
    }
    (loss, gradient / n)
}

/// The activation at `z`.
pub fn activate<T: Scalar>(activation: Activation, z: T) -> T {
    match activation {
        Activation::Relu => z.max(T::zero()),
        Activation::Gelu => z * normal_cdf(z),
        Activation::Silu => z * sigmoid(z),
        Activation::Tanh => z.tanh(),
        Activation::Identity => z,
    }
}

/// Its derivative at `z`.
pub fn derivative<T: Scalar>(activation: Activation, z: T) -> T {
    match activation {
        Activation::Relu if z > T::zero() => T::one(),
        Activation::Relu => T::zero(),
        Activation::Gelu => {
            let density = (-z.wide() * z.wide() / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            normal_cdf(z) + z * T::of(density)
        }
        Activation::Silu => sigmoid(z) * (T::one() + z * (T::one() - sigmoid(z))),
        Activation::Tanh => T::one() - z.tanh() * z.tanh(),
        Activation::Identity => T::one(),
    }
}

fn normal_cdf<T: Scalar>(z: T) -> T {
    T::of(0.5 * libm::erfc(-z.wide() / std::f64::consts::SQRT_2))
}

fn sigmoid<T: Scalar>(z: T) -> T {
    T::one() / (T::one() + (-z).exp())
}

fn count(form: &LinearForm) -> usize {
    form.factors.len() + usize::from(form.bias)
}

/// `out(activation(first(x)))`, backward; gradients of `first` come before those of `out`.
fn through_two<T: Scalar>(
    first: &Bound<'_, T>,
    activation: Activation,
    out: &Bound<'_, T>,
    x: ArrayView2<'_, T>,
    upstream: ArrayView2<'_, T>,
) -> Gradients<T> {
    let before = first.forward(x);
    let inner = before.mapv(|z| activate(activation, z));
    let mut later = out.backward(inner.view(), upstream);
    Zip::from(&mut later.x).and(&before).for_each(|g, &z| *g *= derivative(activation, z));
    let mut earlier = first.backward(x, later.x.view());
    earlier.inputs.append(&mut later.inputs);
    earlier
}

/// A linear form with its tensors.
struct Bound<'a, T> {
    factors: Vec<ArrayView2<'a, T>>,
    bias: Option<ArrayView1<'a, T>>,
}

impl<'a, T: Scalar> Bound<'a, T> {
    fn of(form: &LinearForm, inputs: &'a [ArrayD<T>]) -> Self {
        let (factors, rest) = inputs.split_at(form.factors.len());
        let matrix = |a: &'a ArrayD<T>| a.view().into_dimensionality::<Ix2>().expect("factors are matrices");
        let vector = |a: &'a ArrayD<T>| a.view().into_dimensionality::<Ix1>().expect("a bias is a vector");
        Self { factors: factors.iter().map(matrix).collect(), bias: form.bias.then(|| vector(&rest[0])) }
    }

    /// x, x F1, .., x F1 .. Fk.
    fn products(&self, x: ArrayView2<'_, T>) -> Vec<Array2<T>> {
        let mut products = vec![x.to_owned()];
        for factor in &self.factors {
            products.push(products[products.len() - 1].dot(factor));
        }
        products
    }

    fn forward(&self, x: ArrayView2<'_, T>) -> Array2<T> {
        let y = self.products(x).pop().expect("x itself is the first product");
        match &self.bias {
            Some(bias) => y + bias,
            None => y,
        }
    }

    fn backward(&self, x: ArrayView2<'_, T>, upstream: ArrayView2<'_, T>) -> Gradients<T> {
        let products = self.products(x);
        let bias: Option<Array1<T>> = self.bias.map(|_| upstream.sum_axis(Axis(0)));
        let mut inputs = Vec::new();
        let mut x = upstream.to_owned();
        for (factor, product) in self.factors.iter().zip(&products).rev() {
            inputs.push(product.t().dot(&x).into_dyn());
            x = x.dot(&factor.t());
        }
        inputs.reverse();
        inputs.extend(bias.map(|b| b.into_dyn()));
        Gradients { x, inputs }
    }
}
