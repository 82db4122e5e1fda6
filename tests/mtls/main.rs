//! The broker that `fedtt broker config mosquitto` sets up, with host and devices: who gets in, who may do what, who is put
//! out. Skipped where mosquitto is not installed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod beside;
mod fleet;
mod password;
mod renewal;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fedtt_link::Delivery;
use fedtt_tests::{Process, Word};

use fleet::{Fleet, Probe};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_let_in_those_they_are_for_once() {
    let Some(fleet) = Fleet::start("30d") else { return };
    let host = fleet.serve();

    let seed = fleet.seed("d1.toml", &[&"d1", &"--label", &"orin"]);
    let (enrolled, code) = fleet.enroll(&seed, "d1", "60");
    assert_eq!((code, &enrolled["data"]["name"]), (0, &"d1".into()), "{enrolled:#}");
    assert_eq!((&enrolled["data"]["broker"], &enrolled["data"]["labels"][0]), (&fleet.url().into(), &"orin".into()));
    for file in ["device.pem", "signing.key", "enrolled.toml"] {
        let mode = fs::metadata(fleet.path("d1").join("identity").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (again, code) = fleet.enroll(&seed, "d1", "60");
    assert!(code == 1 && again["error"].as_str().unwrap().contains("enrolled as `d1`"), "{again:#}");
    let (thief, code) = fleet.enroll(&seed, "thief", "60");
    assert!(code == 1 && thief["error"].as_str().unwrap().contains("used up, by d1"), "{thief:#}");

    let forged = fs::read_to_string(fleet.seed("d2.toml", &[&"d2"])).unwrap();
    let at = forged.find("token = \"").unwrap() + 9 + 17;
    let other = if &forged[at..=at] == "A" { "B" } else { "A" };
    fs::write(fleet.path("forged.toml"), format!("{}{other}{}", &forged[..at], &forged[at + 1..])).unwrap();
    let (refused, code) = fleet.enroll(&fleet.path("forged.toml"), "forger", "3");
    assert!(code == 1 && refused["error"].as_str().unwrap().contains("not enrolled within 3 s"), "{refused:#}");

    // Boards alike, which name themselves.
    let batch = fleet.seed("batch.toml", &[&"--batch", &"2"]);
    let name = |device: &str| {
        let (state, name) = (fleet.path(device), device.to_string());
        fedtt_tests::json("fedtt-edge", &[&"enroll", &"--seed", &batch, &"--state", &state, &"--name", &name])
    };
    assert_eq!((name("b1").1, name("b2").1), (0, 0));
    let (third, code) = name("b3");
    assert!(code == 1 && third["error"].as_str().unwrap().contains("used up, by b1, b2"), "{third:#}");
    let batch = fleet.seed("another.toml", &[&"--batch", &"2"]);
    let state = fleet.path("imposter");
    let words: [Word<'_>; 7] = [&"enroll", &"--seed", &batch, &"--state", &state, &"--name", &"d1"];
    let (taken, code) = fedtt_tests::json("fedtt-edge", &words);
    assert!(code == 1 && taken["error"].as_str().unwrap().contains("another device's name"), "{taken:#}");

    let (listed, _) = fleet.fedtt(&[&"device", &"show", &"d1"]);
    assert_eq!(listed["data"]["identity"]["enrolled"], true, "{listed:#}");
    assert_eq!(listed["data"]["identity"]["key"], enrolled["data"]["key"]);
    assert_eq!(host.terminate(), 0);

    // Without a host, by hand.
    let (state, csr, pem) = (fleet.path("d3"), fleet.path("d3.csr"), fleet.path("d3.pem"));
    let words: [Word<'_>; 7] = [&"enroll", &"--csr", &csr, &"--name", &"d3", &"--state", &state];
    fedtt_tests::data("fedtt-edge", &words);
    let (signed, code) = fleet.fedtt(&[&"device", &"enroll", &"d3", &"--csr", &csr, &"-o", &pem]);
    assert_eq!(code, 0, "{signed:#}");
    let (other, code) = fleet.fedtt(&[&"device", &"enroll", &"d4", &"--csr", &csr]);
    assert!(code == 1 && other["error"].as_str().unwrap().contains("for `d3`, not for `d4`"), "{other:#}");
    let (ca, key, url) = (fleet.path("d3.ca.pem"), signed["data"]["host"].as_str().unwrap().to_string(), fleet.url());
    let words: [Word<'_>; 13] = [
        &"enroll",
        &"--certificate",
        &pem,
        &"--ca",
        &ca,
        &"--broker",
        &url,
        &"--host-key",
        &key,
        &"--fleet",
        &"north",
        &"--state",
        &state,
    ];
    assert_eq!(fedtt_tests::data("fedtt-edge", &words)["name"], "d3");
    Probe::listening(&fleet.url(), "d3", fleet.tls("d3"), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_speaks_for_itself_alone_and_the_revoked_not_at_all() {
    let Some(fleet) = Fleet::start("30d") else { return };
    let host = fleet.serve();
    for device in ["d1", "d2"] {
        let seed = fleet.seed(&format!("{device}.toml"), &[&device]);
        assert_eq!(fleet.enroll(&seed, device, "60").1, 0);
    }
    assert_eq!(host.terminate(), 0);

    nobody_without_a_certificate(&fleet).await;
    let (url, all) = (fleet.url(), "fedtt/north/#");
    let mut host = Probe::listening(&url, "host", fleet.host_tls(), &[all]).await;
    let wanted = ["fedtt/north/down/+", "fedtt/north/up/+", "fedtt/north/presence/+", "fedtt/north/run/+/plan", "#"];
    let mut d1 = Probe::listening(&url, "d1", fleet.tls("d1"), &wanted).await;
    let mut d2 = Probe::listening(&url, "d2", fleet.tls("d2"), &wanted).await;

    // A device writes where it may, and nowhere else.
    for topic in ["up/d1", "presence/d1", "run/r/plan", "run/r/round", "down/d1", "down/d2", "host", "enroll/d1/ask"] {
        d2.say(&format!("fedtt/north/{topic}"), "bad", true).await;
    }
    d2.say("fedtt/south/up/d2", "bad", false).await;
    d2.say("fedtt/north/presence/d2", "here", true).await;
    d2.say("fedtt/north/up/d2", "mine", false).await;
    assert_eq!(host.heard_until("mine").await, ["fedtt/north/presence/d2 here", "fedtt/north/up/d2 mine"]);
    // It hears what is for it or for all.
    host.say("fedtt/north/down/d1", "for d1", true).await;
    host.say("fedtt/north/run/r/plan", "for all", false).await;
    host.say("fedtt/north/down/d2", "for d2", false).await;
    assert_eq!(d2.heard_until("for d2").await, ["fedtt/north/run/r/plan for all", "fedtt/north/down/d2 for d2"]);
    assert_eq!(d1.heard_until("for all").await, ["fedtt/north/down/d1 for d1", "fedtt/north/run/r/plan for all"]);
    host.heard_until("for d2").await;
    // Under another's client id it does not push that one out.
    let taker = Probe::listening(&url, "d1", fleet.tls("d2"), &[]).await;
    taker.say("fedtt/north/up/d1", "bad", false).await;
    taker.link.clone().shutdown().await;
    d1.say("fedtt/north/up/d1", "still here", false).await;
    assert_eq!(host.heard_until("still here").await, ["fedtt/north/up/d1 still here"]);
    while !matches!(d2.next().await, Delivery::Connected { .. }) {}
    host.link.clone().shutdown().await;

    // Out: the connection that stands, and any other.
    let serving = fleet.serve();
    let (revoked, code) = fleet.fedtt(&[&"device", &"revoke", &"d1"]);
    assert_eq!(code, 0, "{revoked:#}");
    assert!(revoked["data"]["connection"]["Ok"].is_null() && revoked["data"]["connection"]["Err"].is_null());
    assert_eq!((&revoked["data"]["certificates"], &revoked["data"]["device"]), (&1.into(), &"d1".into()));
    let ended = d1.refusal().await;
    assert!(!ended.contains("revoked"), "its connection is closed: {ended}");
    for _ in 0..3 {
        let refused = d1.refusal().await;
        assert!(refused.contains("CertificateRevoked") && refused.contains("enrol anew"), "{refused}");
    }
    let (shown, _) = fleet.fedtt(&[&"device", &"show", &"d1"]);
    assert!(shown["data"]["identity"]["revoked"].is_u64(), "{shown:#}");
    // Without the list of certificates, the rights alone keep it out.
    assert_eq!(serving.terminate(), 0);
    let mut host = Probe::listening(&url, "host", fleet.host_tls(), &["fedtt/north/up/+"]).await;
    let conf = fleet.path("broker").join("mosquitto.conf");
    let without: String = fs::read_to_string(&conf)
        .unwrap()
        .lines()
        .filter(|l| !l.starts_with("crlfile"))
        .map(|l| format!("{l}\n"))
        .collect();
    fs::write(&conf, without).unwrap();
    let mut fleet = fleet;
    fleet.broker.restart().unwrap();
    while !matches!(host.next().await, Delivery::Connected { .. }) {}
    host.link.flush().await.unwrap();
    while !matches!(d1.next().await, Delivery::Connected { .. }) {}
    while !matches!(d2.next().await, Delivery::Connected { .. }) {}
    for filter in wanted {
        d1.link.subscribe(filter).await.unwrap();
    }
    d1.say("fedtt/north/up/d1", "bad", false).await;
    d1.link.flush().await.unwrap();
    d2.say("fedtt/north/up/d2", "good", false).await;
    assert_eq!(host.heard_until("good").await, ["fedtt/north/up/d2 good"]);
    host.say("fedtt/north/down/d1", "bad", false).await;
    host.say("fedtt/north/run/r/plan", "bad", false).await;
    host.link.flush().await.unwrap();
    d1.link.flush().await.unwrap();
    assert_eq!(d1.inbox.try_recv(), None, "a revoked device hears nothing");

    // Let in again, by name.
    d1.link.clone().shutdown().await;
    host.link.clone().shutdown().await;
    let serving = fleet.serve();
    let seed = fleet.seed("d1-again.toml", &[&"d1"]);
    assert_eq!(fleet.enroll(&seed, "d1-again", "60").1, 0);
    assert_eq!(serving.terminate(), 0);
    fleet.reload();
    let mut host = Probe::listening(&url, "host", fleet.host_tls(), &["fedtt/north/up/+"]).await;
    let again = Probe::listening(&url, "d1", fleet.tls("d1-again"), &[]).await;
    again.say("fedtt/north/up/d1", "back", false).await;
    assert_eq!(host.heard_until("back").await, ["fedtt/north/up/d1 back"]);
}

/// Clear text, strangers, and those who only enrol.
async fn nobody_without_a_certificate(fleet: &Fleet) {
    let (url, ca) = (fleet.url(), fleet.host_tls().ca);
    let clear = format!("mqtt://localhost:{}", fleet.work);
    Probe::new(&clear, "clear", None).await.refusal().await;
    Probe::new(&format!("mqtt://localhost:{}", fleet.enroll), "clear", None).await.refusal().await;
    let bare = fedtt_link::TlsFiles { ca: ca.clone(), ..Default::default() };
    let refused = Probe::new(&url, "bare", Some(bare.clone())).await.refusal().await;
    assert!(refused.contains("CertificateRequired") || refused.contains("HandshakeFailure"), "{refused}");
    let anonymous = format!("mqtts://localhost:{}", fleet.enroll);
    let refused = Probe::new(&anonymous, "anonymous", Some(bare.clone())).await.refusal().await;
    assert!(refused.contains("refuses us"), "{refused}");

    // With the password of a seed file, one can ask for a certificate, and nothing else.
    let seed = fs::read_to_string(fleet.path("d1.toml")).unwrap();
    let address = seed.lines().find_map(|line| line.strip_prefix("broker = \"")).unwrap().trim_end_matches('"');
    let elsewhere = address.replace(&fleet.enroll.to_string(), &fleet.work.to_string());
    Probe::new(&elsewhere, "enroller", Some(bare.clone())).await.refusal().await;
    let mut host = Probe::listening(&url, "host", fleet.host_tls(), &["fedtt/north/#"]).await;
    let answers = ["fedtt/north/enroll/+/answer", "#", "fedtt/north/run/#", "fedtt/north/enroll/e-r1/answer"];
    // Not even to push out who works, by its name.
    for taken in ["fedtt-host", "d1"] {
        let refused = Probe::called(address, taken, Some(bare.clone())).await.refusal().await;
        assert!(refused.contains("not authorised"), "{refused}");
    }
    let mut enroller = Probe::listening(address, "r1", bare, &answers).await;
    for topic in ["up/d1", "up/enroll", "presence/d1", "presence/enroll", "run/r/plan", "host", "enroll/e-r2/ask"] {
        enroller.say(&format!("fedtt/north/{topic}"), "bad", true).await;
    }
    enroller.say("fedtt/north/enroll/e-r1/ask", "asked", false).await;
    assert_eq!(host.heard_until("asked").await, ["fedtt/north/enroll/e-r1/ask asked"]);
    host.say("fedtt/north/enroll/e-r2/answer", "bad", false).await;
    host.say("fedtt/north/run/r/plan", "bad", false).await;
    host.say("fedtt/north/enroll/e-r1/answer", "answered", false).await;
    assert_eq!(enroller.heard_until("answered").await, ["fedtt/north/enroll/e-r1/answer answered"]);
    host.link.shutdown().await;
}

/// Rounds over mutual TLS: the host, and devices with nothing but their state folder to say who and where they are.
#[test]
fn a_round_passes_over_mutual_tls() {
    let Some(fleet) = Fleet::start("30d") else { return };
    let mut host = fleet.serve();
    let plan = fleet.path("plan.toml");
    let text = "name = 'reports'\nrounds = 1\nseed = 7\n[model]\nmax_length = 16\n\
        labels = ['electrical', 'logistics', 'mechanical', 'network', 'safety', 'sensor']\n\
        [adapter]\nbottleneck = 8\nrank = 2\n[local]\nsteps = 1\nbatch = 2\n[selection]\nmin = 1\n\
        [collection]\ncount = { min = 1 }\n";
    fs::write(&plan, text).unwrap();
    // Enrols itself at its first start, by the seed file beside its settings.
    let board = fleet.path("board");
    fs::create_dir(&board).unwrap();
    fs::write(board.join("edge.toml"), "state = 'state'\n[engine]\nengine = 'tract'\n").unwrap();
    fs::rename(fleet.seed("d1.toml", &[&"d1", &"--label", &"orin"]), board.join("enroll.toml")).unwrap();
    let mut device = start(&board);
    device.wait_for(|line| line["event"] == "enrolled" && line["name"] == "d1");
    host.wait_for(|line| line["enrolled"] == "d1");
    assert!(!board.join("enroll.toml").exists(), "what may let others in is not left about");
    let started = device.wait_for(|line| line["event"] == "started");
    assert_eq!((&started["broker"], &started["fleet"]), (&fleet.url().into(), &"north".into()));
    let (begun, code) = fleet.fedtt(&[&"run", &"start", &plan]);
    assert_eq!(code, 0, "{begun:#}");
    let run = begun["data"]["run"].as_str().unwrap().to_string();
    let (ended, code) = fleet.fedtt(&[&"run", &"wait", &run]);
    assert_eq!(code, 0, "{ended:#}");
    let (listed, _) = fleet.fedtt(&[&"device", &"list"]);
    let shown = &listed["data"]["devices"][0];
    assert_eq!((&shown["name"], &shown["labels"][0], &shown["online"]), (&"d1".into(), &"orin".into(), &true.into()));
    assert_eq!((device.terminate(), host.terminate()), (0, 0));
}

/// Starts the device of a folder with its settings.
pub(crate) fn start(folder: &Path) -> Process {
    let config = folder.join("edge.toml");
    Process::start("fedtt-edge", &[&"run", &"--config", &config])
}
