//! What an adapter's factors stand for, as plain matrices.

use std::collections::{BTreeMap, HashMap};

use fedtt_tt::AdapterSet;
use fedtt_tt::form::{AdapterForm, LinearForm};
use ndarray::{Array2, ArrayD, Ix2};

/// Begins the names of dense matrices in an adapter's file; whoever reads the adapter passes over them.
pub const DENSE: &str = "dense/";

/// The dense matrices of all adapters and of the head, for `y = x W + b` with `W` of shape `[in, out]`; an adapter's
/// scaling is within them.
///
/// - of a bottleneck at `<site>`, which makes of the site's value `h`: `h + activation(h D + d) U + u`, the matrices
///   `<site>.down.weight`, `<site>.up.weight` and, where there are any, the biases `<site>.down.bias`, `<site>.up.bias`;
/// - of a branch (LoRA), `<site>.weight`, which is added to the weight of the projection it stands beside;
/// - of the head, `head.out.weight`, `head.out.bias` and, where it has a hidden layer, `head.hidden.weight`, `.bias`.
///
/// Names begin with [`DENSE`].
pub fn dense(set: &AdapterSet) -> BTreeMap<String, ArrayD<f32>> {
    let factors: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
    let mut all = BTreeMap::new();
    let mut add = |name: &str, prefix: &str, form: &LinearForm, scaling: f32| {
        if let Some(weight) = product(&factors, prefix, form) {
            all.insert(format!("{DENSE}{name}.weight"), (weight * scaling).into_dyn());
        }
        if let Some(bias) = factors.get(&format!("{prefix}.bias")).filter(|_| form.bias) {
            all.insert(format!("{DENSE}{name}.bias"), bias * scaling);
        }
    };
    for (site, form) in set.forms() {
        let within = |part: &str| format!("{}.{part}", site.id);
        match form {
            AdapterForm::Bottleneck { down, up, scaling, .. } => {
                add(&within("down"), &within("down"), &down, 1.0);
                add(&within("up"), &within("up"), &up, scaling);
            }
            AdapterForm::Branch { map, scaling } => add(&site.id, &within("map"), &map, scaling),
        }
    }
    if let Some(head) = set.head_form() {
        if let Some((hidden, _)) = &head.hidden {
            add("head.hidden", "head.hidden", hidden, 1.0);
        }
        add("head.out", "head.out", &head.out, 1.0);
    }
    all
}

/// The product of a map's factors.
fn product(factors: &HashMap<String, ArrayD<f32>>, prefix: &str, form: &LinearForm) -> Option<Array2<f32>> {
    let factor = |i: usize| factors.get(&format!("{prefix}.{i}"))?.clone().into_dimensionality::<Ix2>().ok();
    (1..form.factors.len()).try_fold(factor(0)?, |product, i| Some(product.dot(&factor(i)?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fedtt_tt::config::Method;
    use fedtt_tt::model::{Site, SiteKind};
    use fedtt_tt::{AdapterConfig, HeadSize};

    use super::*;

    fn set(method: Method, kind: SiteKind) -> AdapterSet {
        let config = AdapterConfig { method, scaling: Some(0.5), bottleneck: 8, ..AdapterConfig::default() };
        let site = Site { id: "0.s".into(), kind, block: 0, input: 12, output: 12 };
        let mut set = AdapterSet::new(&config, &[site], Some(HeadSize { input: 12, outputs: 3 }), 3).unwrap();
        for (n, mut value) in set.values_mut().into_iter().enumerate() {
            value.iter_mut().enumerate().for_each(|(i, v)| *v = ((n * 31 + i * 7) % 11) as f32 / 11.0 - 0.5);
        }
        set
    }

    #[test]
    fn a_bottleneck_is_its_factors_product_with_the_scaling_in_the_upper() {
        let set = set(Method::Tt, SiteKind::Mlp);
        let all = dense(&set);
        let inputs: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
        let of = |name: &str| inputs[name].clone().into_dimensionality::<Ix2>().unwrap();
        let up = of("0.s.up.0").dot(&of("0.s.up.1")) * 0.5;
        let down = of("0.s.down.0").dot(&of("0.s.down.1"));
        assert_eq!(all["dense/0.s.up.weight"], up.into_dyn());
        assert_eq!(all["dense/0.s.down.weight"], down.into_dyn());
        assert_eq!(all["dense/0.s.up.bias"], &inputs["0.s.up.bias"] * 0.5);
        assert_eq!(all["dense/0.s.down.bias"], inputs["0.s.down.bias"]);
        assert_eq!(all["dense/head.out.weight"].shape(), [12, 3]);
    }

    #[test]
    fn a_branch_is_one_matrix() {
        let set = set(Method::Lora, SiteKind::Query);
        let all = dense(&set);
        let inputs: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
        let of = |name: &str| inputs[name].clone().into_dimensionality::<Ix2>().unwrap();
        assert_eq!(all["dense/0.s.weight"], (of("0.s.map.0").dot(&of("0.s.map.1")) * 0.5).into_dyn());
        assert!(!all.contains_key("dense/0.s.bias"));
    }
}
