//! A fleet over mosquitto with mutual TLS: the broker's folder, the host, devices, and probes that try what they may.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fedtt_identity::authority::CLIENT_ID;
use fedtt_link::testing::Mosquitto;
use fedtt_link::{Delivery, Inbox, Link, LinkConfig, Publication, Retry, TlsFiles};
use fedtt_tests::{Process, Word, data, json};
use serde_json::Value;

/// Longest wait for a message or a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// A fleet in a folder, with a broker and no host yet.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    pub(crate) work: u16,
    pub(crate) enroll: u16,
    pub(crate) broker: Mosquitto,
}

impl Fleet {
    /// Sets a mosquitto up with `fedtt broker config`, for devices whose certificates last `life`; none where it is not installed.
    pub(crate) fn start(life: &str) -> Option<Self> {
        Self::lasting(life, "365d")
    }

    /// As [`Fleet::start`], with certificates of broker and host that last `own`.
    pub(crate) fn lasting(life: &str, own: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // Bound and let go; together, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [work, enroll] = ports.map(|port| port.local_addr().unwrap().port());
        let (state, out) = (folder.path().join("state"), folder.path().join("broker"));
        let written = data(
            "fedtt",
            &[
                &"broker",
                &"config",
                &"mosquitto",
                &"--hostname",
                &"localhost",
                &"--bind",
                &"127.0.0.1",
                &"--listen",
                &work.to_string(),
                &"--enroll-listen",
                &enroll.to_string(),
                &"-o",
                &out,
                &"--state",
                &state,
                &"--fleet",
                &"north",
                &"--certificate-life",
                &own,
            ],
        );
        assert_eq!(written["broker"], format!("mqtts://localhost:{work}"));
        // Where tests are run by root: mosquitto would become somebody who cannot look into this folder.
        let mut conf = fs::OpenOptions::new().append(true).open(out.join("mosquitto.conf")).unwrap();
        writeln!(conf, "user root").unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, work));
        let Some(broker) = Mosquitto::configured(&out.join("mosquitto.conf"), address).unwrap() else {
            eprintln!("skipped: mosquitto is not installed");
            return None;
        };
        let pid = broker.pid().unwrap();
        let mut settings = fs::OpenOptions::new().append(true).open(out.join("host.toml")).unwrap();
        write!(settings, "\n[identity]\ncertificate_life = \"{life}\"\non_revoke = [\"kill\", \"-HUP\", \"{pid}\"]\n")
            .unwrap();
        Some(Fleet { folder, work, enroll, broker })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the host and waits until it has reached the broker.
    pub(crate) fn serve(&self) -> Process {
        let config = self.path("broker").join("host.toml");
        let mut host = Process::start("fedtt", &[&"serve", &"--config", &config, &"--no-web"]);
        host.wait_for(|line| line["connected"] == true);
        host
    }

    /// `fedtt`, with the fleet's state folder.
    pub(crate) fn fedtt(&self, words: &[Word<'_>]) -> (Value, i32) {
        let state = self.path("state");
        let all: Vec<Word<'_>> = words.iter().copied().chain([&"--state" as Word<'_>, &state]).collect();
        json("fedtt", &all)
    }

    /// Makes a seed file.
    pub(crate) fn seed(&self, file: &str, words: &[Word<'_>]) -> PathBuf {
        let path = self.path(file);
        let all: Vec<Word<'_>> = [&"device" as Word<'_>, &"enroll"].into_iter().chain(words.iter().copied()).collect();
        let all: Vec<Word<'_>> = all.into_iter().chain([&"-o" as Word<'_>, &path]).collect();
        let (made, code) = self.fedtt(&all);
        assert_eq!(code, 0, "{made:#}");
        path
    }

    /// Enrols a device into the state folder of that name.
    pub(crate) fn enroll(&self, seed: &Path, device: &str, wait: &str) -> (Value, i32) {
        let state = self.path(device);
        json("fedtt-edge", &[&"enroll", &"--seed", &seed, &"--state", &state, &"--wait", &wait])
    }

    /// The files an enrolled device comes to the broker with.
    pub(crate) fn tls(&self, device: &str) -> TlsFiles {
        let (folder, file) = (self.path(device).join("identity"), |name: &str| Some(name.to_string()));
        let at = |name: Option<String>| name.map(|name| folder.join(name));
        TlsFiles { ca: at(file("ca.pem")), cert: at(file("device.pem")), key: at(file("device.pem")) }
    }

    /// The files the host comes with.
    pub(crate) fn host_tls(&self) -> TlsFiles {
        let at = |name: &str| Some(self.path("broker").join(name));
        TlsFiles { ca: at("ca.pem"), cert: at("host.pem"), key: at("host.key") }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.work)
    }

    /// Has the broker read its files anew.
    pub(crate) fn reload(&self) {
        let pid = self.broker.pid().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
}

/// Somebody at the broker who tries things.
pub(crate) struct Probe {
    pub(crate) link: Link,
    pub(crate) inbox: Inbox,
}

impl Probe {
    /// Tries to connect, with a client id as the fleet's broker takes it.
    pub(crate) async fn new(url: &str, id: &str, tls: Option<TlsFiles>) -> Self {
        Self::called(url, &format!("{CLIENT_ID}{id}"), tls).await
    }

    /// Tries to connect with this client id.
    pub(crate) async fn called(url: &str, id: &str, tls: Option<TlsFiles>) -> Self {
        let retry = Retry { min: Duration::from_millis(50), max: Duration::from_millis(50) };
        let config = LinkConfig { tls, retry, ..LinkConfig::new(url.parse().unwrap(), id) };
        let (link, inbox) = Link::connect(config).await.unwrap();
        Probe { link, inbox }
    }

    /// Connects, and listens to `filters`.
    pub(crate) async fn listening(url: &str, id: &str, tls: TlsFiles, filters: &[&str]) -> Self {
        let mut probe = Self::new(url, id, Some(tls)).await;
        match probe.next().await {
            Delivery::Connected { .. } => {}
            other => panic!("{id}: {other:?}"),
        }
        for filter in filters {
            probe.link.subscribe(*filter).await.unwrap();
        }
        probe.link.flush().await.unwrap();
        probe
    }

    pub(crate) async fn next(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.inbox.recv()).await.expect("something to happen in time").unwrap()
    }

    pub(crate) async fn say(&self, topic: &str, what: &str, retain: bool) {
        let publication = Publication { topic: topic.into(), payload: what.as_bytes().to_vec().into(), retain };
        self.link.publish(publication).await.unwrap();
    }

    /// All messages up to and with one of this payload, as `topic payload`.
    pub(crate) async fn heard_until(&mut self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            match self.next().await {
                // What the host said while it was there.
                Delivery::Message { payload, .. } if payload.starts_with(b"FT") => {}
                Delivery::Message { topic, payload, .. } => {
                    let payload = String::from_utf8_lossy(&payload).into_owned();
                    let ended = payload == last;
                    heard.push(format!("{topic} {payload}"));
                    if ended {
                        return heard;
                    }
                }
                Delivery::Connected { .. } => {}
                Delivery::Disconnected { reason, .. } => panic!("{reason}"),
            }
        }
    }

    /// Why the broker does not let it in, or no longer.
    pub(crate) async fn refusal(&mut self) -> String {
        loop {
            match self.next().await {
                Delivery::Disconnected { reason, .. } => return reason,
                Delivery::Message { payload, .. } if payload.starts_with(b"FT") => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
