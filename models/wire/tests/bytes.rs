//! Bytes of an update and of a round's change, for a model of BERT-base's shape.

#![allow(clippy::unwrap_used)]

use fedtt_tt::config::{AdapterConfig, HeadKind, Method};
use fedtt_tt::{AdapterSet, CoreSchedule, HeadSize, Site, SiteKind, TrainMask};
use fedtt_wire::message::{Tensors, Update};
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{DeviceName, Digest, Layout, Message, RunId, layout, seal};
use ndarray::ArrayD;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Hidden 768, 12 blocks, two classes.
fn bert_base(config: &AdapterConfig) -> AdapterSet {
    let kinds = [SiteKind::Attention, SiteKind::Mlp, SiteKind::Query, SiteKind::Value];
    let sites = (0..12).flat_map(|block| {
        kinds.map(|kind| Site {
            id: format!("block.{block}.{kind:?}").to_lowercase(),
            kind,
            block,
            input: 768,
            output: 768,
        })
    });
    AdapterSet::new(config, &sites.collect::<Vec<_>>(), Some(HeadSize { input: 768, outputs: 2 }), 0).unwrap()
}

/// Changes of Gaussian values, as dense as they come: every value of every tensor that trains moves.
fn changes(set: &AdapterSet, mask: &TrainMask, encoding: Encoding) -> (Vec<u32>, Vec<EncodedTensor>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let parameters = set.parameters();
    let places = layout::trained(&parameters, mask);
    let encode = |&place: &u32| {
        let shape = parameters[place as usize].shape.clone();
        let gaussian = |_| -> f32 { <StandardNormal as Distribution<f32>>::sample(&StandardNormal, &mut rng) * 1e-3 };
        let values = ArrayD::from_shape_fn(shape, gaussian);
        EncodedTensor::encode(values.view(), encoding, None)
    };
    let tensors = places.iter().map(encode).collect();
    (places, tensors)
}

fn update(set: &AdapterSet, mask: &TrainMask, encoding: Encoding) -> usize {
    let update = Update {
        run: RunId::new("run-1").unwrap(),
        began: 1_790_000_000_000,
        round: 12,
        state: Digest::of(b""),
        device: DeviceName::new("jetson-0042").unwrap(),
        examples: 1000,
        tokens: 0,
        steps: 10,
        loss: 0.5,
        seconds: 10.0,
        joules: None,
        measured: None,
        sent: 1_000_000,
        received: 1_000_000,
        tensors: changes(set, mask, encoding).1,
    };
    Message::from(update).encode(3).unwrap().len() + seal::SEAL
}

fn change(set: &AdapterSet, mask: &TrainMask, encoding: Encoding) -> usize {
    let (places, tensors) = changes(set, mask, encoding);
    let change = Tensors { run: RunId::new("run-1").unwrap(), state: Digest::of(b""), places, tensors };
    Message::from(change).encode(3).unwrap().len() + seal::SEAL
}

#[test]
fn updates_of_bert_base_keep_within_their_budget() {
    let head = |kind| fedtt_tt::config::HeadConfig { kind, ..Default::default() };
    let fedtt = bert_base(&AdapterConfig { head: head(HeadKind::Tt), ..AdapterConfig::default() });
    assert_eq!(Layout::of(&fedtt.parameters()).values(), 60_794);
    let all = TrainMask::default();
    let plus = TrainMask { cores: CoreSchedule::EndsAndOne { round: 1 }, ..all.clone() };
    let lora = bert_base(&AdapterConfig { method: Method::Lora, ..AdapterConfig::default() });
    let lora_fp32 = update(&lora, &all, Encoding::F32);
    let sizes = [
        ("FedTT update", update(&fedtt, &all, Encoding::Int8), 100_000),
        ("FedTT change", change(&fedtt, &all, Encoding::Int8), 100_000),
        ("FedTT+ update", update(&fedtt, &plus, Encoding::Int8), 40_000),
        ("FedTT+ change", change(&fedtt, &plus, Encoding::Int8), 40_000),
        ("FedTT update, bf16", update(&fedtt, &all, Encoding::Bf16), 100_000),
    ];
    for (what, bytes, budget) in sizes {
        println!(
            "{what}: {bytes} bytes, {:.1} times fewer than LoRA in float32 ({lora_fp32})",
            lora_fp32 as f64 / bytes as f64
        );
        assert!(bytes <= budget, "{what}: {bytes} bytes");
        assert!(bytes * 10 <= lora_fp32, "{what}: {bytes} bytes against {lora_fp32}");
    }
}
