//! `fedtt-edge run`

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use fedtt_edge::daemon::{self, EdgeConfig, Settings, Told};
use fedtt_identity::inspect::date;
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::journal::{Log, Priority};
use super::output::VERSION;

const EXAMPLES: &str = "\
Examples:
  fedtt-edge run
  fedtt-edge run --config edge.toml
  fedtt-edge run --broker mqtts://broker.site:8883 --name jetson-07 --data reports.tsv --bundle minilm --state state
  fedtt-edge run --config edge.toml --set policy.quiet=22:00-06:00 --set data.label=fault --json

  fedtt-edge run --config /etc/fedtt/edge.toml

With a seed file of `fedtt device enroll` at enroll.toml beside the settings file it enrols itself at its first start.
The first takes part in the runs of a host on this machine, with the embedded encoder and field reports. It ends on
SIGINT or SIGTERM; what it has made by then is delivered when it starts again.
Exit codes: 0 stopped, 1 failed, 2 wrong usage.";

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Settings file; the options below go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The broker, mqtt[s]://[user[:password]@]host[:port] [default: mqtt://127.0.0.1:1883]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The fleet [default: fedtt]
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// This device's name, unique in its fleet [default: the machine's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// File to learn from; may be given several times [default: the embedded field reports]
    #[arg(long, value_name = "FILE")]
    data: Vec<String>,
    /// Prepared backbone; may be given several times [default: the small embedded encoder]
    #[arg(long, value_name = "DIR")]
    bundle: Vec<String>,
    /// Folder of what must outlive the process [default: fedtt-edge-state]
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Any setting of the file, such as policy.min_examples=50; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl RunArgs {
    /// The options as overrides of the file's settings.
    fn overrides(&self) -> Vec<String> {
        // Display of a TOML value quotes and escapes.
        let string = |text: &String| toml::Value::String(text.clone());
        let list = |texts: &[String]| toml::Value::Array(texts.iter().map(string).collect());
        let one = |key: &str, value: &Option<String>| value.as_ref().map(|text| format!("{key}={}", string(text)));
        let many = |key: &str, values: &[String]| (!values.is_empty()).then(|| format!("{key}={}", list(values)));
        let own = [
            one("broker", &self.broker),
            one("fleet", &self.fleet),
            one("name", &self.name),
            one("state", &self.state),
            many("data.files", &self.data),
            many("bundles", &self.bundle),
        ];
        own.into_iter().flatten().chain(self.set.iter().cloned()).collect()
    }
}

/// Runs the daemon until a signal ends it.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = EdgeConfig::read(args.config.as_deref(), &args.overrides())?;
    let json = args.output.json;
    let tell = move |told: Told| tell(&told, json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Box::pin(signals()?);
        let settings = tokio::select! {
            begun = daemon::begin(&config, args.config.as_deref(), tell) => begun?,
            () = &mut signals => return Ok(()),
        };
        let settings = Settings { workshop: Some(daemon::this_program()?), ..settings };
        let (name, broker, fleet) = (&settings.name, settings.broker.to_string(), &settings.fleet);
        let fields = json!({ "event": "started", "name": name, "broker": broker, "fleet": fleet });
        print(json, fields, &format!("{name} of fleet {fleet}, broker {broker}"));
        Ok(daemon::run(settings, signals, tell).await?)
    })
}

/// Ready at the first signal to end.
pub(crate) fn signals() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn tell(told: &Told, json: bool) {
    match told {
        Told::Notice(notice) => match serde_json::to_value(notice) {
            Ok(Value::Object(fields)) => print(json, fields.into(), notice),
            _ => print(json, json!({}), notice),
        },
        Told::Disconnected { reason, retry_in } => {
            let text = format!("not connected: {reason}; trying again in {:.0} s", retry_in.as_secs_f64().ceil());
            let fields = json!({ "event": "disconnected", "reason": reason, "retry_in": retry_in.as_secs_f64() });
            print(json, fields, &text);
        }
        Told::HostFound { key } => {
            print(json, json!({ "event": "host_found", "key": key }), &format!("listening to the host of key {key}"));
        }
        Told::Forged { topic, reason } => {
            let text = format!("dropped at {topic}: {reason}");
            print(json, json!({ "event": "forged", "topic": topic, "reason": reason }), &text);
        }
        Told::Unreadable { topic, reason } => {
            let text = format!("unreadable, at {topic}: {reason}");
            print(json, json!({ "event": "unreadable", "topic": topic, "reason": reason }), &text);
        }
        Told::Enrolling { name } => {
            print(json, json!({ "event": "enrolling", "name": name }), &format!("asking the host to enrol {name}"));
        }
        Told::Enrolled { name, expires } => {
            let text = format!("enrolled as {name}; the certificate holds until {}", date(*expires));
            print(json, json!({ "event": "enrolled", "name": name, "expires": expires }), &text);
        }
        Told::NotEnrolled { reason } => {
            print(json, json!({ "event": "not_enrolled", "reason": reason }), &format!("not enrolled: {reason}"));
        }
        Told::Renewed { expires } => {
            let text = format!("certificate renewed; it holds until {}", date(*expires));
            print(json, json!({ "event": "renewed", "expires": expires }), &text);
        }
        Told::NotRenewed { reason, expires } => {
            let text = format!("certificate not renewed: {reason}; it holds until {}", date(*expires));
            print(json, json!({ "event": "not_renewed", "reason": reason, "expires": expires }), &text);
        }
        Told::Unready { reason } => {
            let text = format!("takes part in nothing for now: {reason}; looking again every 30 s");
            print(json, json!({ "event": "unready", "reason": reason }), &text);
        }
        Told::Ready { examples, bundles } => {
            let text = format!("takes part; examples: {examples}, bundles: {bundles}");
            print(json, json!({ "event": "ready", "examples": examples, "bundles": bundles }), &text);
        }
        Told::Priority(reason) => print(json, json!({ "event": "priority", "reason": reason }), reason),
        Told::NoControl(reason) => {
            let text = format!("`fedtt-edge doctor` cannot ask this device: {reason}");
            print(json, json!({ "event": "no_control", "reason": reason }), &text);
        }
    }
}

/// One line: an event with version and time in Unix milliseconds, or a text with the time of day (UTC) or, for the journal,
/// its priority.
fn print(json: bool, event: Value, text: &dyn Display) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let priority = priority(&event);
    if json {
        let mut whole = json!({ "version": VERSION, "time": now.as_millis() as u64 });
        if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), event) {
            whole.extend(fields);
        }
        return Log::of_stdout().event(priority, &whole.to_string());
    }
    Log::of_stdout().text(priority, &text.to_string());
}

/// How grave an event is.
fn priority(event: &Value) -> Priority {
    match event.get("event").and_then(Value::as_str).unwrap_or_default() {
        "disconnected" | "forged" | "unreadable" | "ignored" | "set_aside" | "priority" | "no_control" => {
            Priority::Warning
        }
        "not_enrolled" | "not_renewed" | "unready" | "refused" | "held" | "paused" => Priority::Warning,
        "started" | "connected" | "ready" | "host_found" | "enrolled" | "renewed" | "over" => Priority::Notice,
        _ => Priority::Info,
    }
}
