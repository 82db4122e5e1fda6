//! `fedtt serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use fedtt::daemon::{HostConfig, Told, serve};
use fedtt::fleet::Enrolled;
use fedtt_identity::inspect::date;
use fedtt_wire::DeviceName;
use serde_json::{Value, json};

use super::run::line;
use crate::output::{self, Outcome};

const EXAMPLES: &str = "\
Examples:
  fedtt serve                                   broker at 127.0.0.1:1883, live page at http://127.0.0.1:8080
  fedtt serve --config host.toml
  fedtt serve --broker mqtts://host@broker.example:8883 --ca ca.pem --cert host.pem --key host.key
  fedtt serve --bind 127.0.0.1:1884             its own broker, for this machine alone, at another port

It ends with SIGTERM or SIGINT; started again, it takes its runs up where they were. Exit codes: 0 ended as told,
1 failed (an address is taken, the database fails), 2 wrong usage.

With --json it prints one JSON object a line: the envelope once it is up, then events.";

/// Options of `serve`; they go before the settings in the file.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Settings
    #[arg(long, value_name = "host.toml")]
    config: Option<PathBuf>,
    /// Folder of what must outlive the process [default: $FEDTT_STATE, else ~/.local/state/fedtt]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder in which each run gets a folder [default: runs]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// The fleet to serve [default: fedtt]
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// A broker of your own, mqtt[s]://[user[:password]@]host[:port]; without one a broker runs within the host
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Authorities the broker's certificate may be signed by, PEM
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca: Option<PathBuf>,
    /// The host's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where the broker within the host listens [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "broker")]
    bind: Option<SocketAddr>,
    /// Where the live page is [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    web: Option<SocketAddr>,
    /// No live page
    #[arg(long, conflicts_with = "web")]
    no_web: bool,
}

impl ServeArgs {
    fn settings(&self) -> anyhow::Result<HostConfig> {
        let mut config = match &self.config {
            Some(path) => HostConfig::read(path)?,
            None => HostConfig::default(),
        };
        fn set<T: Clone>(setting: &mut T, given: &Option<T>) {
            if let Some(given) = given {
                setting.clone_from(given);
            }
        }
        set(&mut config.state, &self.state);
        set(&mut config.runs, &self.runs);
        set(&mut config.fleet, &self.fleet);
        set(&mut config.embedded.bind, &self.bind);
        set(&mut config.web.bind, &self.web);
        config.web.enabled &= !self.no_web;
        config.broker = match &self.bind {
            Some(_) => None,
            None => self.broker.clone().or(config.broker),
        };
        let tls = &mut config.tls;
        for (setting, given) in [(&mut tls.ca, &self.ca), (&mut tls.cert, &self.cert), (&mut tls.key, &self.key)] {
            *setting = given.clone().or(setting.take());
        }
        // The web page and the run folders are named to others, who may stand elsewhere.
        for folder in [&mut config.state, &mut config.runs] {
            *folder = std::path::absolute(&folder).with_context(|| format!("{}", folder.display()))?;
        }
        Ok(config)
    }
}

pub(crate) fn run(args: &ServeArgs, as_json: bool) -> anyhow::Result<Outcome> {
    let config = args.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = Arc::new(move |told: Told| tell(told, as_json));
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        anyhow::Ok(serve(config, shutdown, told).await?)
    })?;
    // A measurement may still be going on, for nobody.
    runtime.shutdown_background();
    Ok(Outcome { text: "stopped\n".into(), data: json!({ "stopped": true }), ok: true })
}

/// A host goes on when nobody reads what it prints.
fn tell(told: Told, as_json: bool) {
    let _ = if as_json { output::line(value(told)) } else { text(told) };
}

fn value(told: Told) -> Value {
    match told {
        Told::Ready { broker, embedded, web, bundles, control, key } => json!({
            "version": 1, "command": "serve", "ok": true,
            "data": {
                "broker": broker, "embedded": embedded, "web": web, "bundles": bundles, "control": control, "key": key,
            },
        }),
        Told::Connected => json!({ "version": 1, "connected": true }),
        Told::Disconnected { reason, retry_in } => {
            json!({ "version": 1, "connected": false, "reason": reason, "retry_in": retry_in.as_secs_f64() })
        }
        Told::Event(event) => json!({ "version": 1, "event": event }),
        Told::Enrolled(what) => {
            let (what, device) = enrolled(&what);
            json!({ "version": 1, "enrolled": device, "how": what })
        }
        Told::Renewed { whose, expires } => json!({ "version": 1, "renewed": whose, "expires": expires }),
        Told::Warning { source, message } => json!({ "version": 1, "warning": message, "source": source }),
    }
}

fn enrolled(what: &Enrolled) -> (&'static str, &DeviceName) {
    match what {
        Enrolled::In(device) => ("enrolled", device),
        Enrolled::Renewed(device) => ("certificate renewed", device),
        Enrolled::Again(device) => ("certificate sent again", device),
        Enrolled::Refused(device, _) => ("refused", device),
    }
}

fn text(told: Told) -> bool {
    match told {
        Told::Ready { broker, embedded, web, bundles, control, key } => {
            let within = if embedded { " (within this process)" } else { "" };
            let page = web.map(|web| format!("\npage     http://{web}/")).unwrap_or_default();
            let bundles = bundles.map(|at| format!("\nbundles  http://{at}/bundles")).unwrap_or_default();
            output::line(format!(
                "broker   {broker}{within}{page}{bundles}\ncontrol  {}\nkey      {key}",
                control.display()
            ))
        }
        Told::Connected => output::line("connected to the broker"),
        Told::Disconnected { reason, retry_in } => {
            let again = retry_in.as_secs_f64();
            output::complain(format!("warning: broker not reached: {reason}; trying again in {again:.1} s"))
        }
        Told::Event(event) => output::line(format!("{}  {}", event.run, line(&event, None))),
        Told::Enrolled(what) => {
            let (what, device) = enrolled(&what);
            output::line(format!("{device}: {what}"))
        }
        Told::Renewed { whose, expires } => {
            output::line(format!("{whose} certificate is renewed; it holds until {}", date(expires)))
        }
        Told::Warning { source, message } => output::complain(format!("warning: {source}: {message}")),
    }
}
