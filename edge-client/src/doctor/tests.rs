#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fedtt_identity::request::{private_key, request};
use fedtt_identity::{Authority, CheckedRequest};
use fedtt_wire::{DeviceName, FleetName};

use super::{Check, Level, certificate, examine, storage};
use crate::board::tests::Fake;
use crate::daemon::EdgeConfig;
use crate::doctor::broker::clock;

fn config(state: &Path, more: &[&str]) -> EdgeConfig {
    let own = ["name=d1".to_string(), format!("state={}", state.display()), "broker=mqtt://127.0.0.1:1".to_string()];
    let tract = "engine.engine=tract".to_string();
    let overrides: Vec<String> = own.into_iter().chain([tract]).chain(more.iter().map(ToString::to_string)).collect();
    EdgeConfig::read(None, &overrides).unwrap()
}

fn of<'a>(checks: &'a [Check], name: &str) -> Vec<&'a Check> {
    checks.iter().filter(|check| check.name == name).collect()
}

fn one<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    match of(checks, name).as_slice() {
        [check] => check,
        several => panic!("{name}: {several:?} of {checks:?}"),
    }
}

/// What is between the lines of a PEM file.
fn x509(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn private() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

#[tokio::test]
async fn a_board_that_is_fit_but_for_its_broker() {
    let (state, fake) = (private(), Fake::orin_nx());
    let checks = examine(config(state.path(), &[]), &fake.board()).await;
    for name in
        ["settings", "engine", "provider", "bundle", "memory", "state", "data", "clock", "board", "energy", "limits"]
    {
        assert_eq!(one(&checks, name).level, Level::Ok, "{checks:?}");
    }
    assert!(one(&checks, "provider").finding.starts_with("CPU computes"), "{checks:?}");
    assert!(one(&checks, "bundle").finding.contains("3 blocks"), "{checks:?}");
    assert_eq!(one(&checks, "energy").finding, "6.5 W now, by VDD_IN, VDD_CPU_GPU_CV");
    let broker = one(&checks, "broker");
    assert_eq!(broker.level, Level::Fail);
    assert!(broker.finding.contains("127.0.0.1:1") && broker.advice.is_some(), "{broker:?}");
    // It left no more behind than a device itself would.
    let left: Vec<_> = std::fs::read_dir(state.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| ["identity", "runs", "lock"].contains(&name.to_str().unwrap())), "{left:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let (state, fake) = (private(), Fake::orin_nx());
    fake.heat(95);
    fake.set("proc/meminfo", "MemTotal: 60000 kB\nMemAvailable: 20000 kB\n");
    let bundle = state.path().join("no-bundle");
    let more = [
        format!("bundles=['{}']", bundle.display()),
        "data.files=['no-such.tsv']".into(),
        "engine.engine=ort".into(),
        "engine.library=/nowhere/libonnxruntime.so".into(),
    ];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let checks = examine(config(state.path(), &more), &fake.board()).await;
    for (name, part) in [("engine", "/nowhere/libonnxruntime.so"), ("bundle", "no-bundle"), ("data", "no-such.tsv")] {
        let check = one(&checks, name);
        assert!(check.level == Level::Fail && check.finding.contains(part) && check.advice.is_some(), "{check:?}");
    }
    let limits = one(&checks, "limits");
    assert_eq!((limits.level, limits.finding.as_str()), (Level::Warn, "tj-thermal has 95 °C and must cool to 75"));

    let checks = examine(config(state.path(), &[]), &fake.board()).await;
    let memory = one(&checks, "memory");
    assert_eq!(memory.level, Level::Fail, "{memory:?}");
    let most = format!("limits.min_free_memory={}", i64::MAX);
    let checks = examine(config(state.path(), &[&most]), &fake.board()).await;
    assert_eq!(one(&checks, "memory").level, Level::Fail, "{checks:?}");
    let tls = ["broker=mqtts://127.0.0.1:1", "tls.cert=/nowhere.pem", "tls.key=/nowhere.key"];
    let checks = examine(config(state.path(), &tls), &fake.board()).await;
    assert_eq!(one(&checks, "certificate").advice.as_deref(), Some("see [tls] in the settings"));
    let checks = examine(config(state.path(), &["engine.threads=60000"]), &fake.board()).await;
    assert_eq!(one(&checks, "engine").advice.as_deref(), Some("lower engine.threads"));
    let checks = examine(config(state.path(), &["policy.max_seconds=0"]), &fake.board()).await;
    assert!(checks.len() == 1 && one(&checks, "settings").finding.contains("policy.max_seconds"), "{checks:?}");
    let checks = examine(config(state.path(), &["policy.min_examples=100000"]), &fake.board()).await;
    assert!(of(&checks, "data").iter().any(|check| check.level == Level::Fail), "{checks:?}");
}

#[tokio::test]
async fn a_device_that_runs_and_cannot_be_asked_keeps_its_connection() {
    let (state, fake) = (private(), Fake::orin_nx());
    let _running = crate::daemon::StateDir::open(state.path()).unwrap();
    let more = ["broker=mqtts://127.0.0.1:1", "tls.cert=device.pem", "tls.key=device.key"];
    let checks = examine(config(state.path(), &more), &fake.board()).await;
    let broker = one(&checks, "broker");
    assert!(broker.level == Level::Warn && broker.finding.starts_with("not tried"), "{broker:?}");
}

#[test]
fn the_state_folder_is_tried() {
    let state = private();
    let level = |path: &Path| storage::check(path).into_iter().next().unwrap();
    assert_eq!(level(&state.path().join("new/state")).level, Level::Ok);
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let check = level(state.path());
    assert!(check.level == Level::Warn && check.finding.contains("755"), "{check:?}");
    let file = state.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(level(&file).level, Level::Fail);
}

#[test]
fn clocks_are_compared() {
    let hour = 3_600_000;
    let now = 1_800_000_000_000;
    assert_eq!(clock(None, now).level, Level::Ok);
    assert_eq!(clock(None, 86_400_000).level, Level::Fail);
    assert_eq!(clock(Some((now + 1_500, now)), now).finding, "1.5 s behind the host's");
    assert_eq!(clock(Some((now - 60_000, now)), now).level, Level::Warn);
    assert_eq!(clock(Some((now - hour, now)), now).finding, "3600.0 s ahead of the host's");
    assert_eq!(clock(Some((now - hour, now)), now).level, Level::Fail);
}

#[test]
fn certificates_are_read_and_their_end_is_foreseen() {
    const DAY: u64 = 86_400;
    let now = 1_800_000_000;
    let folder = private();
    let (ca, key) = Authority::generate(&FleetName::new("f").unwrap(), now).unwrap();
    let authority = Authority::new(&ca, &key).unwrap();
    let asked = request("d1", &private_key().unwrap(), None).unwrap();
    let name = DeviceName::new("d1").unwrap();
    let issued = authority.device(&CheckedRequest::check(&asked).unwrap(), &name, now + 30 * DAY).unwrap();
    let path = folder.path().join("device.pem");
    std::fs::write(&path, issued.pem).unwrap();
    let level = |renew_at, now| certificate::certificate(&path, renew_at, now, "").level;
    let check = certificate::certificate(&path, None, now, "");
    assert!(check.finding.starts_with("of d1 by FedTT fleet f, until 20") && check.finding.contains("30 days"));
    assert_eq!(level(None, now), Level::Ok);
    assert_eq!(level(None, now + 17 * DAY), Level::Warn);
    let renew_at = Some(now + 20 * DAY);
    assert_eq!(level(renew_at, now + 22 * DAY), Level::Ok);
    assert_eq!(level(renew_at, now + 23 * DAY), Level::Warn);
    assert_eq!(level(renew_at, now + 31 * DAY), Level::Fail);
    let key = private_key().unwrap();
    let request = CheckedRequest::check(&request("b", &key, None).unwrap()).unwrap();
    let broker = authority.broker(&request, &["b".into()], now + 30 * DAY).unwrap().pem;
    let der = x509(&broker);
    assert_eq!(certificate::of_broker(&der, now), None);
    assert_eq!(certificate::of_broker(&der, now + 20 * DAY).unwrap().level, Level::Warn);
    std::fs::write(&path, "nothing").unwrap();
    assert_eq!(level(None, now), Level::Fail);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(level(None, now), Level::Fail);
}
