//! Another password for the port of enrolment, once a seed file has got into wrong hands.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fedtt_link::{Delivery, TlsFiles};

use super::fleet::{Fleet, Probe};

/// The broker's address in a seed file.
fn address(seed: &Path) -> String {
    let text = fs::read_to_string(seed).unwrap();
    text.lines().find_map(|line| line.strip_prefix("broker = \"")).unwrap().trim_end_matches('"').to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_new_password_old_seeds_let_nobody_in_and_enrolled_boards_stay() {
    let Some(fleet) = Fleet::start("30d") else { return };
    let host = fleet.serve();
    let seed = fleet.seed("d1.toml", &[&"d1"]);
    assert_eq!(fleet.enroll(&seed, "d1", "60").1, 0);
    let leaked = fleet.seed("leaked.toml", &[&"--batch", &"2"]);
    let bare = TlsFiles { ca: fleet.host_tls().ca, ..TlsFiles::default() };
    let mut d1 = Probe::listening(&fleet.url(), "d1", fleet.tls("d1"), &["fedtt/north/down/d1"]).await;
    let mut thief = Probe::listening(&address(&leaked), "thief", bare.clone(), &[]).await;

    let (changed, code) = fleet.fedtt(&[&"broker", &"new-password"]);
    assert!(code == 0 && changed["data"]["broker"]["Err"].is_null(), "{changed:#}");
    assert_eq!(changed["data"]["fleet"], "north");
    assert!(!changed.to_string().contains("enroll:"), "the password is for seed files alone");
    // A connection that stands is closed, and none is made anew.
    let began = Instant::now();
    let refused = loop {
        match thief.next().await {
            Delivery::Disconnected { reason, .. } if reason.contains("refuses us") => break reason,
            _ => assert!(began.elapsed() < Duration::from_secs(20)),
        }
    };
    assert!(refused.contains("not authorised") || refused.contains("password is wrong"), "{refused}");
    let (late, code) = fleet.enroll(&leaked, "d2", "3");
    assert!(code == 1 && late["error"].as_str().unwrap().contains("refuses us"), "{late:#}");

    let fresh = fleet.seed("fresh.toml", &[&"--batch", &"2"]);
    assert_ne!(address(&fresh), address(&leaked));
    let (enrolled, code) = fleet.enroll(&fresh, "d2", "60");
    assert_eq!(code, 0, "{enrolled:#}");
    d1.link.flush().await.unwrap();
    assert_eq!(d1.inbox.try_recv(), None, "its connection stands");
    assert_eq!(host.terminate(), 0);
}
