//! Gradients in f64 against central differences.

use fedtt_tt::adapter::Adapter;
use fedtt_tt::config::{HeadConfig, HeadKind, Init, Method, Rank};
use fedtt_tt::form::Activation;
use fedtt_tt::{AdapterConfig, HeadSize, Module, Site, SiteKind, init, native};
use ndarray::{Array2, ArrayD, ArrayView2};
use proptest::prelude::*;

use crate::support::{random_matrix, random_tensor, random_tt, rng, shapes};

const STEP: f64 = 1e-5;

/// |analytic - numeric| relative to the larger, below `bound`.
fn close(analytic: f64, numeric: f64, bound: f64) -> bool {
    (analytic - numeric).abs() <= bound * analytic.abs().max(numeric.abs()).max(1.0)
}

/// Checks every parameter's gradient of `loss` by moving each value.
fn check_parameters<M: Module<f64> + ?Sized>(module: &mut M, loss: impl Fn(&M) -> f64, gradients: &[ArrayD<f64>]) {
    let parameters = module.parameters();
    assert_eq!(parameters.len(), gradients.len());
    for (p, parameter) in parameters.iter().enumerate() {
        assert_eq!(gradients[p].shape(), parameter.shape, "{}", parameter.name);
        for (i, &analytic) in gradients[p].iter().enumerate() {
            let mut at = |offset: f64| {
                *module.values_mut()[p].iter_mut().nth(i).unwrap() += offset;
                let value = loss(module);
                *module.values_mut()[p].iter_mut().nth(i).unwrap() -= offset;
                value
            };
            let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!(close(analytic, numeric, 1e-6), "{}[{i}]: {analytic} against {numeric}", parameter.name);
        }
    }
}

fn check_input(x: &Array2<f64>, loss: impl Fn(ArrayView2<'_, f64>) -> f64, gradient: &Array2<f64>) {
    for (index, &analytic) in gradient.indexed_iter() {
        let at = |offset: f64| {
            let mut moved = x.clone();
            moved[index] += offset;
            loss(moved.view())
        };
        let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!(close(analytic, numeric, 1e-6), "x{index:?}: {analytic} against {numeric}");
    }
}

fn check_adapter(config: &AdapterConfig, input: usize, output: usize) {
    let rng = &mut rng(7);
    let site = Site { id: "s".into(), kind: SiteKind::Mlp, block: 0, input, output };
    let mut adapter: Box<dyn Adapter<f64>> = init::adapter(config, &site, rng).unwrap();
    let x = random_matrix::<f64>(5, input, rng);
    let upstream = random_matrix::<f64>(5, output, rng);
    let form = adapter.form();
    let inputs = adapter.graph_inputs();
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|i| i.shape().to_vec()).collect();
    assert_eq!(shapes, form.tensors().into_iter().map(|(_, shape)| shape).collect::<Vec<_>>());

    let gradients = native::adapter_backward(&form, &inputs, x.view(), upstream.view());
    let loss =
        |inputs: &[ArrayD<f64>], x: ArrayView2<'_, f64>| (native::adapter_forward(&form, inputs, x) * &upstream).sum();
    check_input(&x, |x| loss(&inputs, x), &gradients.x);
    let views: Vec<_> = gradients.inputs.iter().map(|g| g.view()).collect();
    let of_parameters = adapter.pullback(&views);
    check_parameters(adapter.as_mut(), |a| loss(&a.graph_inputs(), x.view()), &of_parameters);
}

#[test]
fn bottlenecks_of_every_kind() {
    let base = AdapterConfig { bottleneck: 4, scaling: Some(0.7), ..AdapterConfig::default() };
    use Activation::{Gelu, Identity, Relu, Silu, Tanh};
    for activation in [Relu, Gelu, Silu, Tanh, Identity] {
        check_adapter(&AdapterConfig { activation, ..base.clone() }, 12, 12);
    }
    check_adapter(&AdapterConfig { method: Method::Dense, ..base.clone() }, 7, 7);
    check_adapter(&AdapterConfig { bias: false, rank: Some(Rank::Uniform(2)), ..base.clone() }, 6, 6);
    check_adapter(&AdapterConfig { init: Init::Identity, ..base.clone() }, 6, 6);
    let modes = Some(vec![2, 3, 2, 2, 2]);
    let rank = Some(Rank::PerBond(vec![2, 3, 4, 2]));
    check_adapter(&AdapterConfig { down_modes: modes, rank, ..base }, 12, 12);
}

#[test]
fn branches() {
    for method in [Method::Lora, Method::FfaLora, Method::TtLora, Method::TtCore] {
        check_adapter(&AdapterConfig { method, rank: Some(Rank::Uniform(3)), ..AdapterConfig::default() }, 8, 6);
    }
    let train = AdapterConfig { method: Method::TtLora, init: Init::Near, ..AdapterConfig::default() };
    let (down_modes, rank) = (Some(vec![2, 4, 3, 2]), Some(Rank::PerBond(vec![2, 4, 2])));
    check_adapter(&AdapterConfig { down_modes, rank, ..train }, 8, 6);
}

#[test]
fn heads_under_cross_entropy() {
    let rng = &mut rng(11);
    for kind in [HeadKind::Dense, HeadKind::Tt] {
        let config = HeadConfig { kind, rank: Rank::Uniform(3), ..HeadConfig::default() };
        let mut head = init::head::<f64>(&config, HeadSize { input: 12, outputs: 3 }, rng).unwrap();
        let form = head.form();
        let x = random_matrix::<f64>(4, 12, rng);
        let labels = [0, 2, 1, 2];
        let loss = |inputs: &[ArrayD<f64>], x: ArrayView2<'_, f64>| {
            native::cross_entropy(native::head_forward(&form, inputs, x).view(), &labels).0
        };
        let inputs = head.graph_inputs();
        let (_, d_logits) = native::cross_entropy(native::head_forward(&form, &inputs, x.view()).view(), &labels);
        let gradients = native::head_backward(&form, &inputs, x.view(), d_logits.view());
        check_input(&x, |x| loss(&inputs, x), &gradients.x);
        let views: Vec<_> = gradients.inputs.iter().map(|g| g.view()).collect();
        let of_parameters = head.pullback(&views);
        check_parameters(&mut head, |h| loss(&h.graph_inputs(), x.view()), &of_parameters);
    }
}

#[test]
fn activations_against_their_derivatives() {
    use Activation::{Gelu, Identity, Relu, Silu, Tanh};
    for activation in [Relu, Gelu, Silu, Tanh, Identity] {
        for z in [-4.0, -1.3, -0.2, 0.4, 1.0, 3.7] {
            let at = |z| native::activate::<f64>(activation, z);
            let numeric = (at(z + STEP) - at(z - STEP)) / (2.0 * STEP);
            assert!(close(native::derivative(activation, z), numeric, 1e-8), "{activation:?} at {z}");
        }
    }
    // x Phi(x) at 1: Phi(1) = 0.841344746...
    assert!((native::activate::<f64>(Activation::Gelu, 1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// `<d, L(cores)>` and `<d, R(cores)>` are multilinear in the cores, so a central difference is exact.
    #[test]
    fn core_gradients_of_any_shape(shape in shapes(), seed: u64) {
        let rng = &mut rng(seed);
        let tt = random_tt::<f64>(&shape, rng);
        let d_left = random_matrix::<f64>(shape.rows(), shape.cut_rank(), rng);
        let d_right = random_matrix::<f64>(shape.cut_rank(), shape.columns(), rng);
        let gradients = tt.pullback(d_left.view(), d_right.view());
        for (i, gradient) in gradients.iter().enumerate() {
            let direction = random_tensor::<f64>(gradient.shape(), rng);
            let at = |step: f64| {
                let mut cores = tt.cores().to_vec();
                cores[i] += &(&direction.view().into_dimensionality::<ndarray::Ix3>().unwrap() * step);
                let (left, right) = fedtt_tt::TtMatrix::from_cores(cores, shape.cut()).unwrap().halves();
                (left * &d_left).sum() + (right * &d_right).sum()
            };
            let numeric = (at(1.0) - at(-1.0)) / 2.0;
            let analytic = (gradient.view().into_dyn().to_owned() * &direction).sum();
            prop_assert!(close(analytic, numeric, 1e-11), "core {}: {} against {}", i, analytic, numeric);
        }
    }
}
