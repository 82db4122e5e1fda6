//! `fedtt-edge fetch`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fedtt_edge::adapters::Adapters;
use fedtt_edge::batch::{BatchShape, EncodedSet};
use fedtt_edge::daemon::EdgeConfig;
use fedtt_edge::data::{Dataset, Example};
use fedtt_edge::evaluate::predict;
use fedtt_edge::fetch::{FetchSettings, Http, Shelf, Step, Wanted, bundle, is_hash};
use fedtt_edge::flags::EngineArgs;
use fedtt_wire::RunId;
use serde::Serialize;

use super::args::{AdapterArgs, OutputArgs};
use super::context;
use super::output::Output;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge fetch bundle HASH --config edge.toml
  fedtt-edge fetch bundle http://host:8080/bundles/HASH
  fedtt-edge fetch adapter http://host:8080/runs/reports-1/adapter.safetensors --sha256 SHA256 --run reports-1

A bundle goes to STATE/bundles/HASH, where the daemon finds it; copying a bundle's folder there by hand does the same. An
adapter goes to STATE/adapters/RUN once it has been loaded and run; `predict --run RUN` and `serve-local` use it at once.
A download that breaks off goes on where it was.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Options of `fetch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FetchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A bundle, by its hash from `fetch.bundles`, or from the address that ends in its hash
    Bundle(BundleArgs),
    /// An adapter, from its address and with its SHA-256
    Adapter(AdapterFetchArgs),
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The daemon's state folder [default: that of --config, else fedtt-edge-state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The daemon's settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct BundleArgs {
    /// Hash, or http(s) address ending in the hash
    #[arg(value_name = "HASH|URL")]
    bundle: String,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct AdapterFetchArgs {
    /// Its address
    url: String,
    /// Its SHA-256, as the host has it beside the adapter (adapter.safetensors.sha256)
    #[arg(long, value_name = "SHA256")]
    sha256: String,
    /// The run it is of
    #[arg(long, value_name = "RUN")]
    run: RunId,
    /// Prepared backbone [default: as `predict` finds it]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    path: &'a Path,
}

impl FetchArgs {
    pub(crate) fn json(&self) -> bool {
        match &self.what {
            What::Bundle(args) => args.output.json,
            What::Adapter(args) => args.output.json,
        }
    }
}

impl PlaceArgs {
    fn open(&self) -> anyhow::Result<(PathBuf, FetchSettings, Http)> {
        let config = EdgeConfig::read(self.config.as_deref(), &[])?;
        let http = Http::new(config.fetch.ca.as_deref(), config.fetch.rate);
        Ok((self.state.clone().unwrap_or(config.state), config.fetch, http))
    }
}

/// Fetches.
pub(crate) fn run(args: &FetchArgs, output: Output) -> anyhow::Result<()> {
    let path = match &args.what {
        What::Bundle(args) => fetch_bundle(args, output)?,
        What::Adapter(args) => fetch_adapter(args)?,
    };
    output.success(&Report { path: &path }, &path.display().to_string())
}

fn fetch_bundle(args: &BundleArgs, output: Output) -> anyhow::Result<PathBuf> {
    let (state, mut settings, http) = args.place.open()?;
    let whole = args.bundle.trim_end_matches('/');
    let hash = match whole.rsplit_once('/') {
        Some((base, hash)) => {
            settings.bundles = Some(base.to_string());
            hash
        }
        None => whole,
    };
    let mut tenths = 0;
    let mut told = |Step { have, bytes }: Step| {
        let now = have * 10 / bytes.max(1);
        if now > tenths && !output.is_json() {
            eprintln!("{have} of {bytes} bytes");
        }
        tenths = tenths.max(now);
    };
    Ok(bundle(&http, &Shelf::of(&state), &settings, hash, &|| false, &mut told)?)
}

fn fetch_adapter(args: &AdapterFetchArgs) -> anyhow::Result<PathBuf> {
    let (state, settings, http) = args.place.open()?;
    if !is_hash(&args.sha256) {
        bail!("`{}` is not a SHA-256 in lower-case hexadecimal", args.sha256);
    }
    let adapters = Adapters::of(&state);
    let candidate = adapters.candidate(&args.run).with_context(|| format!("cannot use {}", state.display()))?;
    let bytes = http.size(&args.url)?;
    if bytes > settings.max_bytes {
        bail!("{} has {bytes} bytes; `fetch.max_bytes` allows {}", args.url, settings.max_bytes);
    }
    let wanted = Wanted { url: &args.url, bytes, sha256: &args.sha256 };
    http.download(&wanted, &candidate, &|| false, &mut |_| {})?;
    let given = AdapterArgs {
        bundle: args.bundle.clone(),
        adapter: Some(candidate),
        run: None,
        state: Some(state),
        config: args.place.config.clone(),
    };
    match check(&given, &args.engine) {
        Ok(()) => adapters.accept(&args.run)?,
        Err(error) => {
            adapters.refuse(&args.run)?;
            return Err(error.context("the adapter is not used"));
        }
    }
    Ok(adapters.current(&args.run))
}

/// Loads an adapter and sees that what it says is finite.
fn check(adapter: &AdapterArgs, engine: &EngineArgs) -> anyhow::Result<()> {
    let mut working = context::working(adapter, engine)?;
    let text = |text: &str| Example { text: text.into(), pair: None, label: None, line: 1 };
    // Numbers: a bundle without a tokenizer takes token ids.
    let data = Dataset { name: "the check".into(), examples: vec![text("1 2 3"), text("1 2")] };
    let encoded: EncodedSet = working.encoding().bare(&data)?;
    let shape: BatchShape = working.shape(encoded.rows.len().max(1));
    let said = predict(&mut working.model, &working.adapter.set, &encoded, shape)?;
    match said.rows.iter().flatten().all(|value| value.is_finite()) {
        true => Ok(()),
        false => bail!("an output is infinite or not a number"),
    }
}
