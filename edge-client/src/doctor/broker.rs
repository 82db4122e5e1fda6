//! The broker and the host behind it: whether they are reached and answer, and by how much the clocks differ.
//!
//! A device that runs beside is asked how its own connection is. Without one the doctor connects, under a client id of its own,
//! with no will, and leaves no presence.

use std::io;
use std::time::Duration;

use fedtt_link::{Delivery, Inbox, Link, LinkConfig};
use fedtt_wire::message::{Greeting, Host, SMALL};
use fedtt_wire::{Message, PublicKey, Topic, Topics, seal};
use tokio::time::{Instant, timeout_at};

use super::{Check, certificate};
use crate::daemon::{Settings, StateDir, StoreError, control, now};
use crate::identity::Identity;

/// How long the broker is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the host is waited for once the broker is reached.
const ANSWER: Duration = Duration::from_secs(4);

/// A clock may be off by this, in milliseconds, and nobody minds.
const SKEW: u64 = 30_000;

/// By more than this certificates and quiet hours go wrong.
const MUCH_SKEW: u64 = 300_000;

/// 1 January 2025, in Unix milliseconds: no clock that was ever set says less.
const LONG_AGO: u64 = 1_735_689_600_000;

/// `running` is what the device that runs here says, or why it says nothing.
pub(super) async fn check(settings: &Settings, running: io::Result<control::Standing>) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut asked = Asked { reached: None, peer: None, host: None, greeting: None };
    let certified = settings.tls.as_ref().is_some_and(|tls| tls.cert.is_some());
    let outcome = match running {
        Ok(standing) if standing.broker == settings.broker.to_string() => {
            checks.extend(standing.problem.as_ref().map(|problem| unready(problem)));
            asked.hear(settings, standing)
        }
        Err(error) if certified && matches!(StateDir::open(&settings.state), Err(StoreError::InUse(_))) => {
            let finding = format!("not tried: a device runs here and does not answer ({error})");
            let advice = "a second connection with its certificate may end its own: look with `systemctl status fedtt-edge`, or stop \
                          it and examine again";
            Err(Check::warn("broker", finding, advice))
        }
        _ => asked.ask(settings).await,
    };
    checks.extend(outcome.err());
    checks.extend(asked.reached);
    checks.extend(asked.peer.and_then(|der| certificate::of_broker(&der, now() / 1000)));
    checks.push(clock(asked.greeting.as_ref().map(|(greeting, at)| (greeting.time, *at)), now()));
    if let Some((greeting, _)) = &asked.greeting {
        checks.push(Check::ok("host", format!("fedtt {} hears this device and takes its messages", greeting.version)));
    } else if checks.iter().any(|check| check.name == "broker" && check.level == super::Level::Ok) {
        checks.push(match asked.host {
            Some(key) => Check::warn(
                "host",
                format!("a host of key {key} is there and does not answer this device"),
                "see on the host: `fedtt device list` shows whether the device is known, revoked, or another by its name",
            ),
            None => Check::warn("host", "no host has said that it is there", "start it with `fedtt serve`, same fleet"),
        });
    }
    checks
}

struct Asked {
    reached: Option<Check>,
    /// The certificate the broker showed, in DER.
    peer: Option<Vec<u8>>,
    host: Option<PublicKey>,
    /// With the time it came.
    greeting: Option<(Greeting, u64)>,
}

/// The broker is not reached, or does not let the device do what it has to.
fn cannot(broker: &str, reason: &str) -> Check {
    let advice = match reason {
        r if r.contains("ertificate") => "see [tls] and the clock; `fedtt-edge enroll` gets another certificate",
        r if r.contains("uthori") || r.contains("password") || r.contains("dentifier") => {
            "the broker does not let this device in: see its certificate or password, and the broker's ACL. Brokers that want the \
             device's own name as client id, such as AWS IoT, are examined while it runs: it is asked then"
        }
        _ => "is the broker running, and is the network there? See broker in the settings",
    };
    let named = if reason.contains(broker) { reason.to_string() } else { format!("{broker}: {reason}") };
    Check::fail("broker", named, advice)
}

/// The device that runs here may see less than who examines it.
fn unready(problem: &str) -> Check {
    let finding = format!("the device that runs here takes part in nothing for now: {problem}");
    let advice = "it looks again every 30 s. As a service it sees nothing of /home, and reads what its user may read";
    Check::fail("device", finding, advice)
}

fn identity(settings: &Settings) -> Result<Identity, Check> {
    let advice = "have the state folder belong to the device's user";
    Identity::open(&settings.state).map_err(|e| Check::fail("identity", e.to_string(), advice))
}

impl Asked {
    /// What the device that runs here says of its connection.
    fn hear(&mut self, settings: &Settings, standing: control::Standing) -> Result<(), Check> {
        let broker = standing.broker;
        if !standing.connected {
            let reason = standing.reason.unwrap_or_else(|| "it does not answer".into());
            return Err(cannot(&broker, &format!("the device that runs here is not connected: {reason}")));
        }
        self.reached = Some(Check::ok("broker", format!("{broker} is reached by the device that runs here")));
        self.host = identity(settings)?.host().ok().flatten().or(settings.host_key);
        (self.greeting, self.peer) = (standing.greeting, standing.peer);
        Ok(())
    }

    async fn ask(&mut self, settings: &Settings) -> Result<(), Check> {
        let broker = settings.broker.to_string();
        let cannot = |error: &dyn std::fmt::Display| {
            Check::fail("broker", format!("{broker}: {error}"), "see broker and [tls] in the settings")
        };
        let identity = identity(settings)?;
        let config = LinkConfig {
            tls: settings.tls.clone(),
            ..LinkConfig::new(settings.broker.clone(), settings.client_id(&format!("{}-doctor", settings.name)))
        };
        let (link, mut inbox) = Link::connect(config).await.map_err(|e| cannot(&e))?;
        let topics = Topics::new(&settings.fleet);
        let asked = self.converse(settings, &topics, &identity, &link, &mut inbox).await;
        self.peer = link.peer_certificate().borrow().as_ref().map(|peer| peer.to_vec());
        link.shutdown().await;
        asked
    }

    async fn converse(
        &mut self,
        settings: &Settings,
        topics: &Topics,
        identity: &Identity,
        link: &Link,
        inbox: &mut Inbox,
    ) -> Result<(), Check> {
        let broker = settings.broker.to_string();
        let cannot = |reason: &str| cannot(&broker, reason);
        let refused = |error: fedtt_link::LinkError| cannot(&error.to_string());
        for topic in [Topic::Down(settings.name.clone()), Topic::Host] {
            link.subscribe(topics.name(&topic)).await.map_err(refused)?;
        }
        let up = topics.name(&Topic::Up(settings.name.clone()));
        let nonce = control::nonce();
        let question = control::hello(identity, &up, nonce).map_err(|e| cannot(&e.to_string()))?;
        let mut known = identity.host().ok().flatten().or(settings.host_key);
        let mut until = Instant::now() + PATIENCE;
        let mut said = None;
        loop {
            let delivery = match timeout_at(until, inbox.recv()).await {
                Ok(Some(delivery)) => delivery,
                Ok(None) => return Err(cannot("the connection ended")),
                Err(_) if self.reached.is_some() => return Ok(()),
                Err(_) => return Err(cannot(said.as_deref().unwrap_or("it does not answer"))),
            };
            match delivery {
                Delivery::Connected { .. } if self.reached.is_none() => {
                    link.publish(question.clone()).await.map_err(refused)?;
                    let acknowledged = timeout_at(until, link.flush()).await;
                    if !matches!(acknowledged, Ok(Ok(()))) {
                        return Err(cannot("it does not acknowledge: not authorised to subscribe or publish?"));
                    }
                    self.reached = Some(Check::ok("broker", format!("{broker} is reached and takes what is sent")));
                    until = Instant::now() + ANSWER;
                }
                Delivery::Connected { .. } => {}
                Delivery::Disconnected { reason, .. } if self.reached.is_some() => {
                    // Brokers end a connection that does what it may not.
                    self.reached = None;
                    return Err(cannot(&reason));
                }
                Delivery::Disconnected { reason, .. } => {
                    if said.replace(reason.clone()).is_some() {
                        return Err(cannot(&reason));
                    }
                }
                Delivery::Message { topic, payload, .. } => {
                    let host = introduced(&topic, &payload);
                    known = known.or(host);
                    self.host = self.host.or(host);
                    let opened = known.and_then(|key| key.open(&topic, &payload).ok());
                    let message = opened.and_then(|frame| Message::decode(frame, SMALL).ok());
                    if let Some(Message::Greeting(greeting)) =
                        message.filter(|_| topics.parse(&topic) != Some(Topic::Host))
                        && greeting.nonce == nonce
                    {
                        self.greeting = Some((greeting, now()));
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// The key of a host that says who it is.
fn introduced(topic: &str, payload: &[u8]) -> Option<PublicKey> {
    match Message::decode(seal::unsealed(payload).ok()?.0, SMALL).ok()? {
        Message::Host(Host { key, .. }) => key.open(topic, payload).ok().map(|_| key),
        _ => None,
    }
}

/// By the host's time and when it came, both in Unix milliseconds; by the clock alone without.
pub(super) fn clock(told: Option<(u64, u64)>, now: u64) -> Check {
    let advice =
        "let the clock be set: enable systemd-timesyncd or chrony, and see that the board's clock has a battery";
    let Some((theirs, ours)) = told else {
        return match now {
            0..LONG_AGO => Check::fail("clock", "it stands before 2025", advice),
            _ => Check::ok("clock", "plausible; no host told its time to compare with"),
        };
    };
    let skew = theirs.abs_diff(ours);
    let seconds = skew as f64 / 1000.0;
    let finding = format!("{seconds:.1} s {} the host's", if ours < theirs { "behind" } else { "ahead of" });
    if skew <= SKEW {
        Check::ok("clock", finding)
    } else if skew <= MUCH_SKEW {
        Check::warn("clock", finding, advice)
    } else {
        Check::fail("clock", finding, advice)
    }
}
