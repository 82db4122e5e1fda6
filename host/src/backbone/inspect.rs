//! `fedtt backbone inspect`

use std::path::PathBuf;

use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::bundle::Bundle;
use fedtt_tt::config::{AdapterConfig, Method};
use fedtt_tt::model::AdapterSet;
use serde_json::json;

use crate::output::{Outcome, bytes, table};

/// Show a bundle's blocks, sites, size and precision, and what a client would send per round.
#[derive(clap::Args)]
#[command(after_help = "Example: fedtt backbone inspect minilm.bundle")]
pub(crate) struct Args {
    /// The bundle.
    bundle: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    describe(&Bundle::open(&args.bundle)?)
}

/// What `prepare` prints of the bundle it made and `inspect` of one that is there.
pub(crate) fn describe(bundle: &Bundle) -> anyhow::Result<Outcome> {
    let backbone = Backbone::open(bundle)?;
    let (anatomy, settings) = (&backbone.anatomy, bundle.settings());
    let parameters: u64 = backbone.graph.weights.values().filter(|w| w.shape.len() > 1).map(|w| w.len() as u64).sum();
    let stored: u64 = bundle.manifest().parts.values().map(|part| part.bytes).sum();
    let uplink = uplink(&backbone);
    let attention = match anatomy.causal {
        Some(true) => "to what comes before",
        Some(false) => "in both directions",
        None => "-",
    };

    let mut text = format!("{}\n\n", bundle.folder().display());
    let inputs: Vec<&str> = backbone.feeds.iter().map(|(_, name)| name.as_str()).collect();
    let output = if anatomy.logits.is_some() { "hidden state and logits" } else { "hidden state" };
    for (name, value) in [
        ("source", settings.source.file.clone()),
        ("hash", bundle.hash().to_string()),
        ("blocks", anatomy.blocks().to_string()),
        ("hidden", anatomy.hidden.to_string()),
        ("vocabulary", settings.vocabulary.map_or("-".into(), |v| v.to_string())),
        ("weights", format!("{parameters} in matrices, mostly {}", settings.precision)),
        ("size", bytes(stored)),
        ("inputs", inputs.join(", ")),
        ("outputs", output.to_string()),
        ("attention", attention.to_string()),
        ("tokenizer", if bundle.tokenizer().is_some() { "yes" } else { "no (takes token ids)" }.to_string()),
    ] {
        text += &format!("  {name:<12}{value}\n");
    }
    let rows: Vec<Vec<String>> = backbone
        .sites()
        .map(|site| vec![site.id.clone(), format!("{} -> {}", site.width_in, site.width_out), site.tensor.clone()])
        .collect();
    text += &format!("\n{}", table(&["site", "projection", "tensor"], &rows));
    let rows: Vec<Vec<String>> = uplink
        .iter()
        .map(|(name, count)| vec![name.to_string(), count.to_string(), bytes(4 * *count as u64)])
        .collect();
    text += &format!(
        "\nA client would send per round (without a head, f32, before compression):\n{}",
        table(&["method", "parameters", "bytes"], &rows)
    );
    let data = json!({
        "bundle": bundle.folder(),
        "hash": bundle.hash(),
        "source": settings.source,
        "blocks": anatomy.blocks(),
        "hidden": anatomy.hidden,
        "vocabulary": settings.vocabulary,
        "precision": settings.precision,
        "matrix_weights": parameters,
        "bytes": stored,
        "inputs": inputs,
        "logits": anatomy.logits.is_some(),
        "causal": anatomy.causal,
        "tokenizer": bundle.tokenizer().is_some(),
        "sites": anatomy.sites,
        "branches": anatomy.branches,
        "uplink": uplink.iter().map(|(name, count)| json!({"method": name, "parameters": count, "bytes_f32": 4 * count})).collect::<Vec<_>>(),
    });
    Ok(Outcome { text, data, ok: true })
}

/// Parameters per round of each method at its default settings; methods the backbone has no sites for are left out.
fn uplink(backbone: &Backbone) -> Vec<(&'static str, usize)> {
    let sites = backbone.adapter_sites();
    let methods = [
        ("FedTT", Method::Tt),
        ("TT-LoRA", Method::TtLora),
        ("TT-core", Method::TtCore),
        ("LoRA", Method::Lora),
        ("FFA-LoRA", Method::FfaLora),
        ("dense adapters", Method::Dense),
    ];
    let count = |method| {
        let config = AdapterConfig { method, ..AdapterConfig::default() };
        let set = AdapterSet::new(&config, &sites, None, 0).ok()?;
        let trained = set.parameters().into_iter().filter(|p| p.trainable);
        Some(trained.map(|p| p.shape.iter().product::<usize>()).sum())
    };
    methods.into_iter().filter_map(|(name, method)| Some((name, count(method)?))).collect()
}
