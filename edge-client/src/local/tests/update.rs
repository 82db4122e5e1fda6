//! What is sent, and what encoding it loses.

use fedtt_wire::Layout;
use fedtt_wire::layout::Entry;
use fedtt_wire::plan::{Coding, Encoding};
use ndarray::{ArrayD, array};

use super::super::LocalError;
use super::super::train::add_proximal;
use super::super::update::{Encoded, encode};

fn layout() -> Layout {
    let entry = |name: &str, n: usize| Entry { name: name.into(), shape: vec![n] };
    Layout(vec![entry("a", 3), entry("b", 2)])
}

fn globals() -> Vec<ArrayD<f32>> {
    vec![array![1.0f32, 1.0, 1.0].into_dyn(), array![5.0f32, 5.0].into_dyn()]
}

fn run(
    local: &[ArrayD<f32>],
    places: &[u32],
    residual: Option<&[ArrayD<f32>]>,
    coding: &Coding,
) -> Result<Encoded, LocalError> {
    let views: Vec<_> = local.iter().map(|v| v.view()).collect();
    encode(&layout(), places, &views, &globals(), residual, coding)
}

#[test]
fn what_encoding_loses_is_sent_the_next_time() {
    let coding = Coding { encoding: Encoding::Int8, shuffle: None, delta: true, feedback: true };
    // The largest change is one, so the step is 1/127 and the small change is lost.
    let local = [array![2.0f32, 1.0 + 0.25 / 127.0, 1.0].into_dyn(), array![9.0f32, 9.0].into_dyn()];
    let first = run(&local, &[0], None, &coding).unwrap();
    assert_eq!(first.tensors.len(), 1);
    assert_eq!(first.tensors[0].decode("a", &[3]).unwrap().as_slice().unwrap(), [1.0, 0.0, 0.0]);
    let residual = first.residual.unwrap();
    assert!((residual[0][1] - 0.25 / 127.0).abs() < 1e-6, "{residual:?}");
    assert_eq!(residual[1].as_slice().unwrap(), [0.0, 0.0], "what did not train keeps its residual");

    // Four times the same loss make a step, which is sent.
    let mut kept = residual;
    let mut sent = 0.0;
    for _ in 0..3 {
        let next = run(&local, &[0], Some(&kept), &coding).unwrap();
        sent += next.tensors[0].decode("a", &[3]).unwrap()[1];
        kept = next.residual.unwrap();
    }
    assert!((sent - 1.0 / 127.0).abs() < 1e-6, "{sent}");
    let whole = 4.0 * 0.25 / 127.0;
    assert!((sent + kept[0][1] - whole).abs() < 1e-6, "nothing is lost");
}

#[test]
fn without_feedback_nothing_is_kept_and_without_delta_values_are_sent() {
    let local = [array![2.0f32, 1.0, 1.0].into_dyn(), array![5.5f32, 4.0].into_dyn()];
    let coding = Coding { encoding: Encoding::F32, shuffle: None, delta: false, feedback: false };
    let values = run(&local, &[1], None, &coding).unwrap();
    assert_eq!(values.tensors[0].decode("b", &[2]).unwrap(), local[1]);
    assert!(values.residual.is_none());
    let delta = run(&local, &[1], None, &Coding { delta: true, ..coding }).unwrap();
    assert_eq!(delta.tensors[0].decode("b", &[2]).unwrap().as_slice().unwrap(), [0.5, -1.0]);
}

#[test]
fn a_value_that_is_not_finite_is_never_sent() {
    for bad in [f32::NAN, f32::INFINITY] {
        let local = [array![1.0f32, bad, 1.0].into_dyn(), array![5.0f32, 5.0].into_dyn()];
        let error = run(&local, &[0], None, &Coding::default()).err().unwrap().to_string();
        assert!(error.starts_with("`a` became infinite or not a number"), "{error}");
    }
}

#[test]
fn the_proximal_gradient_by_hand() {
    let mut gradients = vec![array![1.0f32, 0.0, -1.0].into_dyn(), array![0.0f32, 0.0].into_dyn()];
    let local = [array![1.5f32, 1.0, 0.0].into_dyn(), array![5.0f32, 3.0].into_dyn()];
    let views: Vec<_> = local.iter().map(|v| v.view()).collect();
    add_proximal(&mut gradients, 0.5, &views, &globals());
    assert_eq!(gradients[0].as_slice().unwrap(), [1.25, 0.0, -1.5]);
    assert_eq!(gradients[1].as_slice().unwrap(), [0.0, -1.0]);
}
