#![allow(clippy::unwrap_used)]

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

use super::packed::Packed;
use super::*;

fn array(values: Vec<f32>) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(&[values.len()]), values).unwrap()
}

fn there_and_back(values: &ArrayD<f32>, encoding: Encoding, shuffle: Option<bool>) -> ArrayD<f32> {
    let mut cbor = Vec::new();
    let encoded = EncodedTensor::encode(values.view(), encoding, shuffle);
    let several = Packed(vec![encoded.clone(), EncodedTensor::lossless(values.view()), encoded.clone(), encoded]);
    ciborium::into_writer(&several, &mut cbor).unwrap();
    let back: Packed = ciborium::from_reader(cbor.as_slice()).unwrap();
    assert_eq!(back, several);
    back.0[3].decode("t", values.shape()).unwrap()
}

proptest! {
    #[test]
    fn every_encoding_keeps_what_it_promises(values in prop::collection::vec(-1e3f32..1e3, 0..200), shuffle: Option<bool>) {
        let values = array(values);
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        prop_assert_eq!(&there_and_back(&values, Encoding::F32, shuffle), &values);
        let errors = [(Encoding::Bf16, 1.0 / 256.0, 0.0), (Encoding::F16, 1.0 / 2048.0, 1e-7), (Encoding::Int8, 0.0, 0.5001 / 127.0 * largest)];
        for (encoding, relative, absolute) in errors {
            for (x, y) in values.iter().zip(&there_and_back(&values, encoding, shuffle)) {
                prop_assert!((x - y).abs() <= relative * x.abs() + absolute, "{:?}: {} became {}", encoding, x, y);
            }
        }
    }

    #[test]
    fn lossless_is_lossless(bits in prop::collection::vec(any::<u32>(), 0..50)) {
        let finite = bits.into_iter().map(f32::from_bits).map(|x| if x.is_finite() { x } else { 1.0 });
        let values = array(finite.collect());
        let encoded = EncodedTensor::lossless(values.view());
        prop_assert_eq!(encoded.decode("t", values.shape()).unwrap(), values);
    }
}

#[test]
fn values_that_fit_bfloat16_are_sent_in_two_bytes() {
    let encoded = EncodedTensor::lossless(array(vec![1.0, -0.5, 0.0, 3.0]).view());
    assert_eq!((encoded.encoding, encoded.data.len()), (Encoding::Bf16, 8));
    assert_eq!(EncodedTensor::lossless(array(vec![0.1]).view()).encoding, Encoding::F32);
}

#[test]
fn tensors_that_do_not_fit_their_place_are_named() {
    let tensor = EncodedTensor::encode(array(vec![1.0; 6]).view(), Encoding::F32, None);
    assert_eq!(tensor.decode("t", &[2, 3]).unwrap().shape(), [2, 3]);
    let error = tensor.decode("down.core.0", &[7]).unwrap_err().to_string();
    assert_eq!(error, "tensor `down.core.0`: 24 bytes for shape [7] of 4-byte values");
    assert!(tensor.decode("t", &[usize::MAX, usize::MAX]).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        let tensor = EncodedTensor::encode(array(vec![bad]).view(), Encoding::F32, None);
        assert!(tensor.decode("t", &[1]).unwrap_err().to_string().contains("not a number"));
    }
    let scale =
        EncodedTensor { scale: f32::INFINITY, ..EncodedTensor::encode(array(vec![1.0]).view(), Encoding::Int8, None) };
    assert!(scale.decode("t", &[1]).is_err());
}

#[test]
fn groups_that_contradict_themselves_are_refused() {
    let group = |kind: u8, sizes: &[u64], scales: &[u8], tag: Option<u64>, data: &[u8]| {
        let mut cbor = Vec::new();
        let (scales, data) = (serde_bytes::Bytes::new(scales), serde_bytes::Bytes::new(data));
        let tagged = ciborium::tag::Captured(tag, data);
        ciborium::into_writer(&[(kind, sizes, scales, tagged)], &mut cbor).unwrap();
        ciborium::from_reader::<Packed, _>(cbor.as_slice()).map(|p| p.0.len())
    };
    assert_eq!(group(3, &[2, 1], &[0; 8], Some(72), &[1, 2, 3]).unwrap(), 2);
    for (what, result) in [
        ("kind", group(7, &[1], &[], None, &[0; 4])),
        ("tag", group(0, &[1], &[], Some(84), &[0; 4])),
        ("a tag on grouped bytes", group(16, &[1], &[], Some(85), &[0; 4])),
        ("too few scales", group(3, &[2, 1], &[0; 4], Some(72), &[1, 2, 3])),
        ("scales for what has none", group(0, &[1], &[0; 4], None, &[0; 4])),
        ("too little data", group(0, &[2], &[], None, &[0; 4])),
        ("too much data", group(0, &[1], &[], None, &[0; 8])),
        ("a size beyond any", group(0, &[u64::MAX], &[], None, &[0; 8])),
    ] {
        assert!(result.is_err(), "{what}");
    }
}
