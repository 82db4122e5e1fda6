//! Parameter counts as published for LoRETTA and as measured on the shared MiniLM.

use fedtt_tt::config::{HeadConfig, HeadKind, Method, Rank};
use fedtt_tt::{AdapterConfig, AdapterSet, CoreSchedule, HeadSize, TrainMask};

use crate::support::sites;

fn set(config: &AdapterConfig, blocks: usize, hidden: usize, outputs: Option<usize>) -> AdapterSet {
    let head = outputs.map(|outputs| HeadSize { input: hidden, outputs });
    AdapterSet::new(config, &sites(blocks, hidden), head, 0).unwrap()
}

fn count(set: &AdapterSet) -> usize {
    set.count(&TrainMask::default())
}

#[test]
fn bert_base_with_tt_head() {
    let config =
        AdapterConfig { head: HeadConfig { kind: HeadKind::Tt, ..HeadConfig::default() }, ..AdapterConfig::default() };
    let adapters = set(&config, 12, 768, None);
    let cores_of = |layer: &str| -> usize {
        let parameters = adapters.parameters();
        parameters.iter().filter(|p| p.layer == layer && p.name.contains(".core.")).map(|p| p.len()).sum()
    };
    assert_eq!(cores_of("block.0.mlp.down"), 780);
    assert_eq!(cores_of("block.0.mlp.up"), 780);
    let one: usize =
        adapters.parameters().iter().filter(|p| p.name.starts_with("block.3.attention.")).map(|p| p.len()).sum();
    assert_eq!(one, 2_392);
    assert_eq!(count(&adapters), 57_408);
    assert_eq!(count(&set(&config, 12, 768, Some(2))), 60_794);
}

#[test]
fn llama_7b_at_rank_8_with_three_adapters_a_block() {
    let config = AdapterConfig { rank: Some(Rank::Uniform(8)), bias: false, ..AdapterConfig::default() };
    let mut three = Vec::new();
    for site in sites(32, 4096).into_iter().filter(|s| s.id.ends_with("attention") || s.id.ends_with("mlp")) {
        if site.id.ends_with("mlp") {
            three.push(fedtt_tt::Site { id: format!("{}.gate", site.id), ..site.clone() });
        }
        three.push(site);
    }
    let adapters = AdapterSet::new(&config, &three, None, 0).unwrap();
    assert_eq!(count(&adapters), 522_240);
}

#[test]
fn minilm_with_six_classes() {
    let of = |method| AdapterConfig { method, ..AdapterConfig::default() };
    let fedtt = set(&of(Method::Tt), 6, 384, Some(6));
    assert_eq!(count(&fedtt), 23_766);
    assert_eq!(count(&set(&of(Method::Lora), 6, 384, Some(6))), 76_038);
    assert_eq!(count(&set(&of(Method::FfaLora), 6, 384, Some(6))), 39_174);
    assert_eq!(count(&set(&of(Method::TtLora), 6, 384, Some(6))), 28_038);
    assert_eq!(count(&set(&of(Method::TtCore), 6, 384, Some(6))), 12 * 44 * 44 + 2_310);
    assert_eq!(count(&set(&of(Method::Dense), 6, 384, Some(6))), 597_510);

    let of_round = |cores| fedtt.count(&TrainMask { cores, ..TrainMask::default() });
    for round in 0..5 {
        assert_eq!(of_round(CoreSchedule::EndsAndOne { round }), 14_166);
        let expected = if round % 5 == 0 || round % 5 == 4 { 8_526 } else { 12_486 };
        assert_eq!(of_round(CoreSchedule::One { round }), expected, "round {round}");
    }
}
