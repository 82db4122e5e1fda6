//! Settings: their written form, and refusals that name the field.

use fedtt_tt::config::{HeadConfig, HeadKind, Init, Method, Rank, Sites};
use fedtt_tt::{AdapterConfig, AdapterSet, Error, HeadSize};

use crate::support::sites;

fn refused(config: AdapterConfig) -> String {
    let head = HeadSize { input: 384, outputs: 2 };
    match AdapterSet::new(&config, &sites(2, 384), Some(head), 0).unwrap_err() {
        Error::Config { field, .. } => field,
        other => panic!("{other}"),
    }
}

#[test]
fn an_empty_config_is_the_default_and_what_is_written_is_read_back() {
    assert_eq!(serde_json::from_str::<AdapterConfig>("{}").unwrap(), AdapterConfig::default());
    let config = AdapterConfig {
        method: Method::FfaLora,
        rank: Some(Rank::PerBond(vec![2, 3])),
        init: Init::Identity,
        sites: Sites::Attention,
        depth: Some(2),
        down_modes: Some(vec![4, 4]),
        head: HeadConfig { kind: HeadKind::Tt, ..HeadConfig::default() },
        ..AdapterConfig::default()
    };
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<AdapterConfig>(&written).unwrap(), config);
    let plan =
        r#"{"method": "tt", "rank": 8, "sites": "mlp", "activation": "gelu", "head": {"kind": "tt", "rank": [1, 2]}}"#;
    let read: AdapterConfig = serde_json::from_str(plan).unwrap();
    assert_eq!(read.rank, Some(Rank::Uniform(8)));
    assert_eq!(read.head.rank, Rank::PerBond(vec![1, 2]));
    assert!(
        serde_json::from_str::<AdapterConfig>(r#"{"bottelneck": 8}"#).unwrap_err().to_string().contains("bottelneck")
    );
}

#[test]
fn refusals_name_the_field() {
    let base = AdapterConfig::default;
    assert_eq!(refused(AdapterConfig { bottleneck: 0, ..base() }), "bottleneck");
    assert_eq!(refused(AdapterConfig { rank: Some(Rank::Uniform(0)), ..base() }), "rank");
    assert_eq!(refused(AdapterConfig { rank: Some(Rank::Uniform(1_000_000)), ..base() }), "rank");
    assert_eq!(refused(AdapterConfig { rank: Some(Rank::PerBond(vec![5, 5])), ..base() }), "rank");
    assert_eq!(refused(AdapterConfig { scaling: Some(f32::NAN), ..base() }), "scaling");
    assert_eq!(refused(AdapterConfig { depth: Some(0), ..base() }), "depth");
    assert_eq!(refused(AdapterConfig { down_modes: Some(vec![384]), ..base() }), "down_modes");
    assert_eq!(refused(AdapterConfig { down_modes: Some(vec![4, 8, 8, 8, 8, 4]), ..base() }), "down_modes");
    assert_eq!(refused(AdapterConfig { up_modes: Some(vec![64, 384]), ..base() }), "up_modes");
    let huge = HeadConfig { kind: HeadKind::Tt, modes: Some(vec![384, 383]), ..HeadConfig::default() };
    assert_eq!(refused(AdapterConfig { head: huge, ..base() }), "head.modes");
    let lora = AdapterConfig { method: Method::Lora, rank: Some(Rank::PerBond(vec![8])), ..base() };
    assert_eq!(refused(lora), "rank");
}

#[test]
fn a_prime_width_and_a_width_of_a_few_work() {
    for hidden in [1, 2, 7, 37, 127] {
        let head = HeadSize { input: hidden, outputs: 2 };
        let config =
            AdapterConfig { head: HeadConfig { kind: HeadKind::Tt, ..HeadConfig::default() }, ..Default::default() };
        let set = AdapterSet::new(&config, &sites(1, hidden), Some(head), 0).unwrap();
        assert!(set.values().iter().flatten().all(|x| x.is_finite()));
    }
}
