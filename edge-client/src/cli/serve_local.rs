//! `fedtt-edge serve-local`

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use clap::Args;
use fedtt_edge::flags::EngineArgs;
use fedtt_edge::serve::{self, Limits, Model, Opened, Watched};
use serde_json::json;

use super::args::{AdapterArgs, OutputArgs};
use super::context::{self, Working};
use super::output::{VERSION, line};
use super::run::signals;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge serve-local --config /etc/fedtt/edge.toml
  fedtt-edge serve-local --bundle minilm --adapter trec.safetensors --bind 127.0.0.1:9000
  curl -s localhost:8181/predict -H 'content-type: application/json' -d '{\"text\": \"pump 3 trips its breaker\"}'
  curl -s localhost:8181/predict -H 'content-type: application/json' -d '{\"texts\": [\"no signal\", \"oil leak\"]}'
  curl -s localhost:8181/adapter

Without --run and --adapter it is the adapter that the device's daemon put in use last. Until there is one, requests are answered
with 503. One that takes its place is loaded and used from then on; no request is lost over it. It ends on SIGINT or SIGTERM.
Exit codes: 0 stopped, 1 failed, 2 wrong usage.";

/// Options of `serve-local`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeLocalArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Where to listen; a loopback address
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8181)))]
    bind: SocketAddr,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Serves until a signal ends it.
pub(crate) fn run(args: &ServeLocalArgs) -> anyhow::Result<()> {
    let adapter = args.adapter.clone().or_current()?;
    let place = adapter.clone();
    // Before it is read: what takes its place meanwhile is noticed.
    let watched = Watched::new(move || place.file().ok());
    let opened = match adapter.is_awaited()? {
        true => None,
        false => Some(open(&adapter, &args.engine)?),
    };
    let limits = Limits::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (json, engine) = (args.output.json, args.engine.clone());
    runtime.block_on(async move {
        let listener = serve::listen(args.bind).await?;
        let address = listener.local_addr()?;
        let waits = if opened.is_none() { ", without an adapter until a run's first round is over" } else { "" };
        let ready = json!({ "event": "ready", "address": address.to_string(), "adapter": opened.is_some() });
        let model = Model::start(opened, limits.requests)?;
        tell(json, ready, &format!("http://{address}/{waits}"));
        let again = move || open(&adapter, &engine).map_err(|e| format!("{e:#}"));
        let reloaded = move |outcome: Result<(), String>| match outcome {
            Ok(()) => tell(json, json!({ "event": "reloaded" }), "another adapter is in use"),
            Err(reason) => {
                let text = format!("an adapter is not used, the one before it is: {reason}");
                tell(json, json!({ "event": "not_reloaded", "reason": reason }), &text);
            }
        };
        Ok(serve::serve(listener, model, watched, again, reloaded, limits, signals()?).await?)
    })
}

fn open(adapter: &AdapterArgs, engine: &EngineArgs) -> anyhow::Result<Opened> {
    let Working { source, adapter, model, encoder, held, .. } = context::working(adapter, engine)?;
    Ok(Opened { adapter, model, encoder, vocabulary: source.backbone.vocabulary(), held })
}

fn tell(json: bool, mut event: serde_json::Value, text: &str) {
    match json {
        true => {
            event["version"] = VERSION.into();
            line(&event.to_string());
        }
        false => line(text),
    }
}
