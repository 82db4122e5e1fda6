//! What runs beside a device on its board.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::fleet::Fleet;
use super::start;

/// With this broker a second connection of the device's certificate would end the first.
#[test]
fn the_doctor_asks_a_device_that_runs_and_leaves_its_connection_alone() {
    let Some(fleet) = Fleet::start("30d") else { return };
    let mut host = fleet.serve();
    let board = fleet.path("board");
    fs::create_dir(&board).unwrap();
    let config = board.join("edge.toml");
    fs::write(&config, "state = 'state'\n[engine]\nengine = 'tract'\n").unwrap();
    fs::rename(fleet.seed("d1.toml", &[&"d1"]), board.join("enroll.toml")).unwrap();
    let mut device = start(&board);
    host.wait_for(|line| line["enrolled"] == "d1");
    device.wait_for(|line| line["event"] == "connected");
    let examined = |name: &str, part: &str| {
        let (said, code) = fedtt_tests::json("fedtt-edge", &[&"doctor", &"--config", &config]);
        let found = |check: &&Value| check["name"] == name;
        let check = said["data"]["checks"].as_array().unwrap().iter().find(found).unwrap().clone();
        assert!(code == 0 && check["level"] == "ok", "{said:#}");
        assert!(check["finding"].as_str().unwrap().contains(part), "{said:#}");
    };
    examined("broker", "by the device that runs here");
    examined("host", "hears this device");
    while let Some(line) = device.hear(Duration::from_millis(300)) {
        assert_ne!(line["event"], "disconnected", "{line:#}");
    }
    let (listed, _) = fleet.fedtt(&[&"device", &"list"]);
    assert_eq!(listed["data"]["devices"][0]["online"], true, "{listed:#}");
    // Without one it connects itself, and is not taken for the device.
    assert_eq!(device.terminate(), 0);
    examined("broker", "takes what is sent");
    let (listed, _) = fleet.fedtt(&[&"device", &"list"]);
    assert_eq!(listed["data"]["devices"][0]["online"], false, "{listed:#}");
    assert_eq!(host.terminate(), 0);
}
