//! Wrong gradients that finite differences have to find without a reference.

use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::ir::{Builder, DType, Weight};
use fedtt_backbone::verify::{Against, Report, VerifyError, verify};
use fedtt_runtime::{Engine, SessionOptions};

use crate::backbones::{WIDTH, backbone, plain};
use crate::engines::engines;

const OPTIONS: SessionOptions = SessionOptions { threads: 1, low_memory: true };

fn checked(backbone: &Backbone, engine: &dyn Engine) -> Report {
    verify(backbone, engine, &OPTIONS, Against::Differences).unwrap_or_else(|e| panic!("{}: {e}", engine.name()))
}

/// x rounded so finely that nobody sees it; its rule gives no gradient.
fn rounded(b: &mut Builder, x: &str) -> String {
    let (finer, coarser) = (b.scalar(1e5), b.scalar(1e-5));
    let x = b.op("Mul", &[x, &finer], &[]);
    let x = b.op("Round", &[&x], &[]);
    b.op("Mul", &[&x, &coarser], &[])
}

/// x times 1 in the last `kept` channels and 0 in the others.
fn last_channels(b: &mut Builder, x: &str, kept: usize) -> String {
    let values: Vec<f32> = (0..WIDTH).map(|at| f32::from(u8::from(at + kept >= WIDTH))).collect();
    let channels = b.constant("channels", Weight::f32s(&[WIDTH], &values));
    b.op("Mul", &[x, &channels], &[])
}

#[test]
fn right_gradients_pass() {
    for engine in engines() {
        let report = checked(&backbone(DType::F32, plain), engine.as_ref());
        assert!(report.passed, "{report}");
        assert!(report.sites.iter().all(|site| site.finite_difference.unwrap() < 5e-3), "{report}");
    }
}

/// What is missing is at right angles to what is there, so that the gradient's own direction does not show it.
#[test]
fn a_gradient_that_lacks_some_channels_fails() {
    let lacks = |missing: usize| {
        backbone(DType::F32, move |b, s, m| {
            let sum = plain(b, s, m);
            let kept = last_channels(b, &sum, WIDTH - missing);
            let others = b.op("Sub", &[&sum, &kept], &[]);
            let others = rounded(b, &others);
            b.op("Add", &[&kept, &others], &[])
        })
    };
    for engine in engines() {
        for missing in [1, WIDTH / 2] {
            let report = checked(&lacks(missing), engine.as_ref());
            assert!(!report.passed, "{missing} channels: {report}");
            // The output adds up s and m: of the site m, whole channels of the gradient are missing and the others right.
            let share = (missing as f64 / (WIDTH - missing) as f64).sqrt();
            let error = report.sites[1].finite_difference.unwrap();
            assert!(error > 0.2 * share && error < 3.0 * share, "{missing} channels: {error}, missing {share}");
        }
    }
}

#[test]
fn a_gradient_of_zero_has_to_be_zero() {
    let nothing = |b: &mut Builder, s: &str, m: &str| {
        let zero = b.scalar(0.0);
        let none = b.op("Mul", &[m, &zero], &[]);
        plain(b, s, &none)
    };
    let hidden = move |b: &mut Builder, s: &str, m: &str| {
        let sum = nothing(b, s, m);
        let rest = rounded(b, m);
        plain(b, &sum, &rest)
    };
    for engine in engines() {
        let report = checked(&backbone(DType::F32, nothing), engine.as_ref());
        assert_eq!(report.sites[1].finite_difference, Some(0.0), "{report}");
        assert!(report.passed, "{report}");
        let report = checked(&backbone(DType::F32, hidden), engine.as_ref());
        assert!(!report.passed && report.sites[1].finite_difference.unwrap() > 10.0, "{report}");
    }
}

#[test]
fn a_backbone_without_sites_is_not_verified() {
    let mut backbone = backbone(DType::F32, plain);
    backbone.anatomy.sites.clear();
    for engine in engines() {
        let outcome = verify(&backbone, engine.as_ref(), &OPTIONS, Against::Differences);
        assert!(matches!(outcome, Err(VerifyError::NoSites)), "{outcome:?}");
    }
}
