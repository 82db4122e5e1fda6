use std::fs;
use std::path::Path;
use std::time::Duration;

use fedtt_identity::{Seed, Token};
use fedtt_wire::FleetName;

use crate::daemon::place::seed_file;
use crate::daemon::place::{Place, replaced};
use crate::daemon::{EdgeConfig, enrolling_name};

const RECORD: &str = "name = 'd1'\nfleet = 'north'\nbroker = 'mqtts://broker.site:8883'\nlabels = ['orin', 'roof']\n\
    issued = 0\nexpires = 90\n";

fn config(folder: &Path, text: &str) -> EdgeConfig {
    let path = folder.join("edge.toml");
    fs::write(&path, format!("state = 'state'\n{text}")).unwrap();
    EdgeConfig::read(Some(&path), &[]).unwrap()
}

fn place(folder: &Path, text: &str) -> Result<Place, String> {
    Place::of(&config(folder, text)).map_err(|e| e.to_string())
}

#[test]
fn an_enrolled_device_is_who_it_was_enrolled_as_unless_it_is_given_files_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let identity = folder.path().join("state/identity");
    fs::create_dir_all(&identity).unwrap();
    let before = place(folder.path(), "name = 'd9'").unwrap();
    assert_eq!((before.name.as_str(), before.broker.as_str(), before.tls), ("d9", "mqtt://127.0.0.1:1883", None));

    fs::write(identity.join("enrolled.toml"), RECORD).unwrap();
    let of = place(folder.path(), "labels = ['pump', 'roof']").unwrap();
    assert_eq!((of.name.as_str(), of.fleet.as_str(), of.broker.as_str()), ("d1", "north", "mqtts://broker.site:8883"));
    assert_eq!(of.labels, ["pump", "roof", "orin"]);
    assert_eq!(of.tls.unwrap().cert, Some(identity.join("device.pem")));
    // By another way to the same broker, or with nothing of the enrolment.
    let of = place(folder.path(), "broker = 'mqtts://10.0.0.7:8883'").unwrap();
    assert!(of.broker == "mqtts://10.0.0.7:8883" && of.tls.is_some());
    let of = place(folder.path(), "name = 'd1'\nbroker = 'mqtt://user:pw@10.0.0.7'").unwrap();
    assert!(of.broker == "mqtt://user:pw@10.0.0.7" && of.tls.is_none());
    let own =
        "name = 'thing'\nbroker = 'mqtts://iot.amazonaws.com'\n[tls]\nca = 'root.pem'\ncert = 'c.pem'\nkey = 'k.pem'";
    let of = place(folder.path(), own).unwrap();
    assert_eq!((of.name.as_str(), of.broker.as_str()), ("thing", "mqtts://iot.amazonaws.com"));
    assert_eq!(of.tls.unwrap().cert, Some(folder.path().join("c.pem")));
    // Settings that say otherwise are a mistake.
    for (text, field) in [("name = 'd2'", "name"), ("fleet = 'south'", "fleet")] {
        let error = place(folder.path(), text).err().unwrap();
        assert!(error.contains(&format!("setting `{field}`")) && error.contains("enrolled as"), "{error}");
    }
    fs::write(identity.join("enrolled.toml"), "nonsense").unwrap();
    assert!(place(folder.path(), "").err().unwrap().contains("enrolled.toml"));
}

#[test]
fn a_seed_is_looked_for_until_the_device_is_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("edge.toml");
    let found = |text: &str| seed_file(&config(folder.path(), text), Some(&settings)).unwrap();
    let (beside, named) = (folder.path().join("enroll.toml"), folder.path().join("seed.toml"));
    assert_eq!(found("enroll = 'seed.toml'"), None, "used and removed, or not there yet");
    fs::write(&beside, "").unwrap();
    assert_eq!(found(""), Some(beside.clone()));
    assert_eq!(found("broker = 'mqtt://10.0.0.7'"), None, "it goes elsewhere");
    fs::write(&named, "").unwrap();
    assert_eq!(found("enroll = 'seed.toml'"), Some(named));
    let identity = folder.path().join("state/identity");
    fs::create_dir_all(&identity).unwrap();
    fs::write(identity.join("enrolled.toml"), RECORD).unwrap();
    assert_eq!(found("enroll = 'seed.toml'"), None);
}

#[test]
fn a_seed_for_one_device_is_not_used_by_another() {
    let token = fedtt_identity::Token::generate().unwrap();
    let text = |name: &str| format!("fleet = 'north'\nbroker = 'mqtts://b'\ntoken = '{token}'\nca = ''\n{name}");
    let seed = |name: &str| fedtt_identity::Seed::read(&text(name)).unwrap();
    assert_eq!(enrolling_name(&seed("name = 'd1'"), None).unwrap().as_str(), "d1");
    assert_eq!(enrolling_name(&seed(""), Some("d2")).unwrap().as_str(), "d2");
    let error = enrolling_name(&seed("name = 'd1'"), Some("d2")).unwrap_err().to_string();
    assert!(error.contains("for `d1`, not for `d2`"), "{error}");
}

#[tokio::test]
async fn another_seed_is_found_in_place_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enroll.toml");
    let seed = |password: &str| Seed {
        fleet: FleetName::new("north").unwrap(),
        broker: format!("mqtts://enroll:{password}@broker.site:8884"),
        token: Token::generate().unwrap(),
        name: None,
        labels: Vec::new(),
        expires: String::new(),
        ca: String::new(),
    };
    let write = |text: &str| fs::write(&file, text).unwrap();
    let (before, after) = (seed("old"), seed("new"));
    write(&before.write().unwrap());
    let looks = replaced(&file, &before, Duration::from_millis(1));
    let changes = async {
        // Half of it, or none, is no other seed.
        for text in [after.write().unwrap().split_at(40).0, ""] {
            write(text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fs::remove_file(&file).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        "none yet"
    };
    tokio::pin!(looks);
    tokio::select! {
        () = &mut looks => panic!("nothing has come"),
        _ = changes => {}
    }
    write(&after.write().unwrap());
    tokio::time::timeout(Duration::from_secs(20), looks).await.unwrap();
}
