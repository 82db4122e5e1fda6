//! Certificates that end: renewed in time, and when they have ended.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fleet::{Fleet, Probe};
use super::start;

/// Seconds since 1970.
fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn certificates_are_renewed_before_and_after_they_end() {
    let Some(fleet) = Fleet::start("9s") else { return };
    let mut host = fleet.serve();
    let board = fleet.path("board");
    fs::create_dir(&board).unwrap();
    fs::write(board.join("edge.toml"), "state = 'state'\n").unwrap();
    fs::rename(fleet.seed("d1.toml", &[&"d1"]), board.join("enroll.toml")).unwrap();
    let mut device = start(&board);
    let enrolled = device.wait_for(|line| line["event"] == "enrolled");
    let first = enrolled["expires"].as_u64().unwrap();
    // With a third of its life left.
    let renewed = device.wait_for(|line| line["event"] == "renewed");
    assert!(clock() <= first, "in time");
    let second = renewed["expires"].as_u64().unwrap();
    assert!(second > first);
    host.wait_for(|line| line["how"] == "certificate renewed");
    // The connection is made anew, with the new one.
    device.wait_for(|line| line["event"] == "disconnected");
    device.wait_for(|line| line["event"] == "connected");
    assert_eq!(device.terminate(), 0);

    // Offline until after its end.
    let certificate = fs::read(board.join("state/identity/device.pem")).unwrap();
    let kept = fs::read_to_string(board.join("state/identity/enrolled.toml")).unwrap();
    let expires = kept.lines().find_map(|line| line.strip_prefix("expires = ")).unwrap().parse::<u64>().unwrap();
    std::thread::sleep(Duration::from_secs((expires + 1).saturating_sub(clock())));
    let mut device = start(&board);
    device.wait_for(|line| line["event"] == "renewed");
    device.wait_for(|line| line["event"] == "connected");
    assert_ne!(fs::read(board.join("state/identity/device.pem")).unwrap(), certificate);

    // Revoked, it gets no other, and is told so by the host itself.
    let (revoked, code) = fleet.fedtt(&[&"device", &"revoke", &"d1"]);
    assert_eq!(code, 0, "{revoked:#}");
    let refused = device.wait_for(|line| line["event"] == "not_renewed");
    assert!(refused["reason"].as_str().unwrap().contains("revoked"), "{refused:#}");
    assert_eq!((device.terminate(), host.terminate()), (0, 0));
}

/// The broker's own certificate, and the one the host comes with; a mosquitto takes them up at a SIGHUP.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificates_of_broker_and_host_are_renewed_while_the_host_serves() {
    let Some(fleet) = Fleet::lasting("30d", "15s") else { return };
    let first = clock() + 15;
    let mut host = fleet.serve();
    let seed = fleet.seed("d1.toml", &[&"d1"]);
    assert_eq!(fleet.enroll(&seed, "d1", "60").1, 0);
    for whose in ["the host's", "the broker's"] {
        let renewed = host.wait_for(|line| line["renewed"] == whose);
        assert!(renewed["expires"].as_u64().unwrap() > first, "{renewed:#}");
    }
    assert!(clock() <= first, "in time");
    // The host comes anew, with its new certificate, and sees the broker's.
    host.wait_for(|line| line["connected"] == true);
    std::thread::sleep(Duration::from_secs((first + 1).saturating_sub(clock())));
    // What began with is over; devices and host connect all the same.
    Probe::listening(&fleet.url(), "d1", fleet.tls("d1"), &[]).await;
    while let Some(line) = host.hear(Duration::from_millis(500)) {
        assert_eq!(line["warning"], serde_json::Value::Null, "{line:#}");
    }
    assert_eq!(host.terminate(), 0);
}
