#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fedtt_identity::message::{Answer, Enroll, Outcome, Renew, nonce};
use fedtt_identity::request::{private_key, request};
use fedtt_identity::{Inspected, Seed, Token};
use fedtt_wire::{DeviceName, FleetName, RequestId, SigningKey, Topic, Topics};

use super::*;

fn name(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn fleet() -> FleetName {
    FleetName::new("north").unwrap()
}

fn registrar(state: &Path) -> Registrar {
    Registrar::alone(state, Some(fleet())).unwrap()
}

fn options(state: &Path) -> MosquittoOptions {
    MosquittoOptions {
        at: vec!["broker.site".into(), "10.0.0.7".into()],
        port: 8883,
        enroll_port: 8884,
        bind: None,
        folder: state.join("broker"),
        group: None,
        on_revoke: vec!["true".into()],
        life: "90d".parse().unwrap(),
        max_packet: 1 << 20,
    }
}

fn set_up(state: &Path) -> Registrar {
    let mut registrar = registrar(state);
    registrar.set_up(&options(state)).unwrap();
    registrar
}

fn token(registrar: &mut Registrar, device: Option<&str>, uses: u32) -> Seed {
    let options =
        TokenOptions { name: device.map(name), uses, labels: vec!["orin".into()], expires: "7d".parse().unwrap() };
    registrar.token(&options).unwrap()
}

/// A device that asks.
struct Device {
    key: SigningKey,
    name: DeviceName,
    id: RequestId,
}

impl Device {
    fn new(device: &str, seed: u8) -> Self {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap();
        Device { key, name: name(device), id: RequestId::new("0f").unwrap() }
    }

    fn enroll(&self, token: &Token) -> Vec<u8> {
        let asked = Enroll {
            token: token.id().clone(),
            fleet: fleet(),
            name: self.name.clone(),
            request: request(self.name.as_str(), &private_key().unwrap(), None).unwrap(),
            key: self.key.public(),
            nonce: nonce().unwrap(),
        };
        asked.seal(token).unwrap()
    }

    fn renew(&self, count: u64) -> Vec<u8> {
        let request = request(self.name.as_str(), &private_key().unwrap(), None).unwrap();
        let topic = Topics::new(&fleet()).name(&Topic::Ask(self.id.clone()));
        Renew { fleet: fleet(), name: self.name.clone(), request, count }.seal(&self.key, &topic).unwrap()
    }

    /// The certificate, or why there is none.
    fn ask(&self, registrar: &mut Registrar, token: Option<&Token>, ask: &[u8]) -> Result<String, String> {
        let reply = registrar.answer(&self.id, ask).unwrap().unwrap();
        assert_eq!(reply.topic, "fedtt/north/enroll/0f/answer");
        let answer = match token {
            Some(token) => Answer::open_with(token, ask, &reply.payload).unwrap(),
            None => Answer::open(&registrar.host_key(), &reply.topic, ask, &reply.payload).unwrap(),
        };
        match answer.outcome {
            Outcome::Refused(reason) => Err(reason),
            Outcome::Granted(granted) => {
                assert_eq!(granted.broker, "mqtts://broker.site:8883");
                assert_eq!(Inspected::read(&granted.certificate).unwrap().name, self.name.as_str());
                Ok(granted.certificate)
            }
        }
    }
}

#[test]
fn a_token_counts_its_uses_and_a_request_repeated_is_none() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let seed = token(&mut host, None, 2);
    assert_eq!((seed.labels.len(), seed.name), (1, None));
    let (first, second, third) = (Device::new("d1", 1), Device::new("d2", 2), Device::new("d3", 3));
    let asked = first.enroll(&seed.token);
    let given = first.ask(&mut host, Some(&seed.token), &asked).unwrap();
    // Also by a host that was started anew.
    drop(host);
    let mut host = registrar(state.path());
    assert_eq!(first.ask(&mut host, Some(&seed.token), &asked).unwrap(), given);
    second.ask(&mut host, Some(&seed.token), &second.enroll(&seed.token)).unwrap();
    let refused = third.ask(&mut host, Some(&seed.token), &third.enroll(&seed.token)).unwrap_err();
    assert!(refused.contains("used up, by d1, d2"), "{refused}");
    assert_eq!(first.ask(&mut host, Some(&seed.token), &asked).unwrap(), given);
    let known = host.devices().get(&name("d1")).unwrap();
    assert!(known.enrolled && known.key == first.key.public());
    let serial = Inspected::read(&given).unwrap().serial.to_string();
    assert_eq!(known.certificate.unwrap().serial, serial);
}

#[test]
fn a_token_is_for_its_device_its_fleet_and_its_time() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let seed = token(&mut host, Some("d1"), 1);
    let other = Device::new("d2", 2);
    let refused = other.ask(&mut host, Some(&seed.token), &other.enroll(&seed.token)).unwrap_err();
    assert!(refused.contains("for `d1`, not for `d2`"), "{refused}");
    let reserved = token(&mut host, None, 9);
    let poser = Device::new("fedtt-host", 3);
    let refused = poser.ask(&mut host, Some(&reserved.token), &poser.enroll(&reserved.token)).unwrap_err();
    assert!(refused.contains("no name for a device"), "{refused}");

    let changes = host.ledger.begin().unwrap();
    let grant = changes.grant(seed.token.id()).unwrap().unwrap();
    changes.put_grant(&ledger::Grant { expires: now() - 1, ..grant }).unwrap();
    changes.commit().unwrap();
    let device = Device::new("d1", 1);
    let refused = device.ask(&mut host, Some(&seed.token), &device.enroll(&seed.token)).unwrap_err();
    assert!(refused.contains("expired at"), "{refused}");

    let stolen = token(&mut host, None, 3);
    host.cancel(stolen.token.id()).unwrap();
    let refused = device.ask(&mut host, Some(&stolen.token), &device.enroll(&stolen.token)).unwrap_err();
    assert!(refused.contains("expired at"), "{refused}");
    let out = host.tokens().unwrap().into_iter().find(|out| out.id == *stolen.token.id()).unwrap();
    assert_eq!((out.left, out.used.len()), (0, 0));
    assert!(host.cancel(Token::generate().unwrap().id()).unwrap_err().to_string().contains("no token"));

    // Not this host's: said, but not provably.
    let unknown = Token::generate().unwrap();
    let asked = device.enroll(&unknown);
    let reply = host.answer(&device.id, &asked).unwrap().unwrap();
    assert!(Answer::hint(&reply.payload).unwrap().contains("no such token"));
    assert!(Answer::open_with(&unknown, &asked, &reply.payload).is_err());
    // Forged, or damaged: no answer at all.
    let secret = Token::generate().unwrap().to_string();
    let forged: Token = format!("{}.{}", seed.token.id(), secret.split_once('.').unwrap().1).parse().unwrap();
    assert!(host.answer(&device.id, &device.enroll(&forged)).is_err());
    assert!(host.answer(&device.id, b"hello").is_err());
}

#[test]
fn a_name_goes_to_another_board_only_by_a_token_of_its_own_and_takes_the_old_ones_certificate() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let (old, new) = (Device::new("d1", 1), Device::new("d1", 2));
    let batch = token(&mut host, None, 5);
    let first = old.ask(&mut host, Some(&batch.token), &old.enroll(&batch.token)).unwrap();
    let refused = new.ask(&mut host, Some(&batch.token), &new.enroll(&batch.token)).unwrap_err();
    assert!(refused.contains("another device's name"), "{refused}");
    let own = token(&mut host, Some("d1"), 1);
    new.ask(&mut host, Some(&own.token), &new.enroll(&own.token)).unwrap();
    assert_eq!(host.devices().get(&name("d1")).unwrap().key, new.key.public());
    let revoked = host.ledger.begin().unwrap().revoked().unwrap();
    assert_eq!(
        revoked.iter().map(|(serial, _)| serial).collect::<Vec<_>>(),
        [&Inspected::read(&first).unwrap().serial]
    );
    assert!(host.answer(&old.id, &old.renew(1)).is_err(), "the old board's signature counts no more");
}

#[test]
fn renewals_are_for_devices_of_the_fleet_and_are_not_repeated_by_others() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let device = Device::new("d1", 1);
    let stranger = device.ask(&mut host, None, &device.renew(1)).unwrap_err();
    assert!(stranger.contains("not enrolled"), "{stranger}");
    let seed = token(&mut host, Some("d1"), 1);
    device.ask(&mut host, Some(&seed.token), &device.enroll(&seed.token)).unwrap();
    let (first, second) = (device.renew(1), device.renew(2));
    let given = device.ask(&mut host, None, &first).unwrap();
    assert_eq!(device.ask(&mut host, None, &first).unwrap(), given);
    later(&host, "d1", 11 * DAY);
    device.ask(&mut host, None, &second).unwrap();
    let refused = device.ask(&mut host, None, &first).unwrap_err();
    assert!(refused.contains("repeated by somebody"), "{refused}");
    assert!(host.answer(&RequestId::new("10").unwrap(), &second).is_err(), "signed for another topic");

    let revocation = host.revoke(&name("d1")).unwrap();
    let listed = std::fs::read_to_string(state.path().join("broker/acl")).unwrap();
    assert!(listed.contains("user d1\ntopic deny #"), "{listed}");
    drop(revocation);
    assert_eq!(host.ledger.begin().unwrap().revoked().unwrap().len(), 3);
    let refused = device.ask(&mut host, None, &device.renew(3)).unwrap_err();
    assert!(refused.contains("revoked"), "{refused}");
    let batch = token(&mut host, None, 5);
    let refused = device.ask(&mut host, Some(&batch.token), &device.enroll(&batch.token)).unwrap_err();
    assert!(refused.contains("is revoked"), "{refused}");
    let again = token(&mut host, Some("d1"), 1);
    device.ask(&mut host, Some(&again.token), &device.enroll(&again.token)).unwrap();
    let listed = std::fs::read_to_string(state.path().join("broker/acl")).unwrap();
    assert!(!listed.contains("user d1"), "{listed}");
    device.ask(&mut host, None, &device.renew(1)).unwrap();
    assert_eq!(host.ledger.begin().unwrap().revoked().unwrap().len(), 3, "what it had before stays revoked");
    assert!(host.revoke(&name("d9")).unwrap_err().to_string().contains("no device `d9`"));
}

const DAY: u64 = 86_400;

/// So many seconds pass for the last renewal of a device.
fn later(host: &Registrar, device: &str, seconds: u64) {
    let changes = host.ledger.begin().unwrap();
    let last = changes.renewal(&name(device)).unwrap().unwrap();
    let (given, expires) = (last.given - seconds, last.expires - seconds);
    changes.put_renewal(&name(device), &ledger::Answered { given, expires, ..last }).unwrap();
    changes.commit().unwrap();
}

#[test]
fn certificates_are_renewed_as_often_as_they_have_to_be_and_a_lost_answer_costs_minutes() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let device = Device::new("d1", 1);
    let seed = token(&mut host, Some("d1"), 1);
    device.ask(&mut host, Some(&seed.token), &device.enroll(&seed.token)).unwrap();
    let first = device.renew(1);
    let given = device.ask(&mut host, None, &first).unwrap();
    // Who has got its certificate has no need of another for long.
    let refused = device.ask(&mut host, None, &device.renew(2)).unwrap_err();
    assert!(refused.contains("it has is new") && refused.contains("is its clock right"), "{refused}");
    // Who says it has not, by another way, is answered after a while; and as before, if it asks as before.
    let again = device.renew(1);
    for _ in 0..100 {
        assert!(host.answer(&device.id, &again).unwrap().is_none());
    }
    assert_eq!(device.ask(&mut host, None, &first).unwrap(), given);
    later(&host, "d1", 301);
    let other = device.ask(&mut host, None, &again).unwrap();
    assert_ne!(other, given);
    assert!(host.answer(&device.id, &first).unwrap().is_none(), "of two that were lost the last one counts");
    later(&host, "d1", 9 * DAY);
    device.ask(&mut host, None, &device.renew(2)).unwrap_err();
    later(&host, "d1", 2 * DAY);
    device.ask(&mut host, None, &device.renew(2)).unwrap();

    // What an earlier version has written down holds nobody up.
    let changes = host.ledger.begin().unwrap();
    let last = changes.renewal(&name("d1")).unwrap().unwrap();
    let (given, expires) = (0, 0);
    changes.put_renewal(&name("d1"), &ledger::Answered { given, expires, ..last }).unwrap();
    changes.commit().unwrap();
    device.ask(&mut host, None, &device.renew(3)).unwrap();
    // Nor a clock that was set back, or another key.
    let changes = host.ledger.begin().unwrap();
    let last = changes.renewal(&name("d1")).unwrap().unwrap();
    let (given, expires) = (last.given + DAY, last.expires + DAY);
    changes.put_renewal(&name("d1"), &ledger::Answered { given, expires, ..last }).unwrap();
    changes.commit().unwrap();
    device.ask(&mut host, None, &device.renew(4)).unwrap();
    let (board, own) = (Device::new("d1", 2), token(&mut host, Some("d1"), 1));
    board.ask(&mut host, Some(&own.token), &board.enroll(&own.token)).unwrap();
    board.ask(&mut host, None, &board.renew(1)).unwrap();
}

#[test]
fn a_new_password_is_in_what_is_made_from_now_on_and_nothing_else_changes() {
    let state = tempfile::tempdir().unwrap();
    let mut host = registrar(state.path());
    assert!(host.new_password().unwrap_err().to_string().contains("fedtt broker config mosquitto"));
    host.set_up(&options(state.path())).unwrap();
    let file = |name: &str| std::fs::read(state.path().join("broker").join(name)).unwrap();
    let others = ["mosquitto.conf", "acl", "acl.enroll", "broker.pem", "broker.key", "host.pem", "crl.pem"];
    let (before, kept) = (file("passwords"), others.map(file));
    let seed = token(&mut host, Some("d1"), 1);
    let changed = host.new_password().unwrap().carry_through();
    assert_eq!((changed.fleet.as_str(), changed.broker), ("north", Ok(())));
    assert_ne!(file("passwords"), before);
    assert_eq!(others.map(file), kept);
    let mode = |file: &str| std::fs::metadata(state.path().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("broker/passwords"), mode("fleet/broker.toml")), (0o640, 0o600));
    // Also after the host was started anew, and the broker set up again.
    drop(host);
    let mut host = registrar(state.path());
    let fresh = token(&mut host, Some("d1"), 1);
    assert!(fresh.broker != seed.broker && fresh.broker.starts_with("mqtts://enroll:"), "{}", fresh.broker);
    host.set_up(&options(state.path())).unwrap();
    // A device of the fleet hears it with its certificate.
    let device = Device::new("d1", 1);
    let asked = device.enroll(&fresh.token);
    let reply = host.answer(&device.id, &asked).unwrap().unwrap();
    let answer = Answer::open_with(&fresh.token, &asked, &reply.payload).unwrap();
    let Outcome::Granted(granted) = answer.outcome else { panic!() };
    assert_eq!(granted.enroll, fresh.broker);

    // A broker that cannot be told, or is not told at all.
    host.set_up(&MosquittoOptions { on_revoke: vec!["false".into()], ..options(state.path()) }).unwrap();
    assert!(host.new_password().unwrap().carry_through().broker.unwrap_err().contains("`false` failed"));
    host.set_up(&MosquittoOptions { on_revoke: vec![], ..options(state.path()) }).unwrap();
    assert!(host.new_password().unwrap().carry_through().broker.unwrap_err().contains("SIGHUP"));
    // Nothing has changed where the broker's file cannot be written.
    let before = token(&mut host, None, 1).broker;
    std::fs::remove_dir_all(state.path().join("broker")).unwrap();
    assert!(host.new_password().unwrap_err().to_string().contains("passwords"));
    assert_eq!(token(&mut host, None, 1).broker, before);
}

#[test]
fn what_is_kept_secret_is_the_owners_alone_and_settings_written_again_keep_seeds_valid() {
    let state = tempfile::tempdir().unwrap();
    let mut host = registrar(state.path());
    let nowhere = TokenOptions { name: None, uses: 1, labels: vec![], expires: "1d".parse().unwrap() };
    assert!(host.token(&nowhere).unwrap_err().to_string().contains("fedtt broker config mosquitto"));
    host.set_up(&options(state.path())).unwrap();
    let mode = |file: &str| std::fs::metadata(state.path().join(file)).unwrap().permissions().mode() & 0o777;
    for file in ["fleet/ca.key", "fleet/ledger.redb", "fleet/broker.toml", "broker/host.key"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_eq!((mode("fleet"), mode("broker/broker.key"), mode("broker/passwords")), (0o700, 0o640, 0o640));
    let seed = token(&mut host, None, 1);
    assert!(seed.broker.starts_with("mqtts://enroll:") && seed.broker.ends_with("@broker.site:8884"));
    host.set_up(&options(state.path())).unwrap();
    assert_eq!(token(&mut host, None, 1).broker, seed.broker);
    let broker = std::fs::read_to_string(state.path().join("broker/broker.pem")).unwrap();
    let broker = Inspected::read(&broker).unwrap();
    assert_eq!((broker.at, broker.server), (vec!["broker.site".to_string(), "10.0.0.7".to_string()], true));
    let list = || std::fs::read_to_string(state.path().join("broker/crl.pem")).unwrap();
    let before = list();
    host.publish_revoked().unwrap();
    assert_ne!(list(), before, "a later list says that it is later");
    let absent = MosquittoOptions { group: Some("no-such-group".into()), ..options(state.path()) };
    assert!(host.set_up(&absent).unwrap_err().to_string().contains("no group `no-such-group`"));
    assert!(ledger::Ledger::open(&state.path().join("fleet/ledger.redb")).is_err(), "one registrar at a time");
}

#[test]
fn without_the_brokers_folder_devices_are_put_out_all_the_same_and_the_owner_is_told() {
    let state = tempfile::tempdir().unwrap();
    let mut host = set_up(state.path());
    let (device, seed) = (Device::new("d1", 1), token(&mut host, Some("d1"), 1));
    device.ask(&mut host, Some(&seed.token), &device.enroll(&seed.token)).unwrap();
    assert_eq!(host.take_problem(), None);
    std::fs::remove_dir_all(state.path().join("broker")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let revoked = runtime.block_on(host.revoke(&name("d1")).unwrap().carry_through());
    assert!(revoked.broker.unwrap_err().contains("acl"));
    assert!(host.devices().get(&name("d1")).unwrap().revoked.is_some());
    drop(host);
    let mut host = registrar(state.path());
    assert!(host.take_problem().unwrap().contains("not told who is revoked"));
    host.set_up(&options(state.path())).unwrap();
    assert!(std::fs::read_to_string(state.path().join("broker/acl")).unwrap().contains("user d1"));
}

#[test]
fn the_certificates_of_broker_and_host_are_renewed_with_a_third_of_their_life_left() {
    let state = tempfile::tempdir().unwrap();
    let began = now();
    let mut host = set_up(state.path());
    let folder = state.path().join("broker");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let ends = || ["host.pem", "broker.pem"].map(|file| Inspected::read(&read(file)).unwrap().not_after);
    let (first, keys) = (ends(), [read("host.key"), read("broker.key")]);
    assert!(first.iter().all(|end| (began + 90 * DAY..=now() + 90 * DAY).contains(end)));
    let early = host.keep_up(first[0] - 31 * DAY);
    assert!(early.renewed.is_empty() && early.problems.is_empty() && early.reload == ["true"], "{early:?}");

    let late = first[0] - 29 * DAY;
    let kept = host.keep_up(late);
    assert_eq!(kept.renewed, [(Party::Host, late + 90 * DAY), (Party::Broker, late + 90 * DAY)]);
    assert_eq!((ends(), kept.problems.len()), ([late + 90 * DAY; 2], 0));
    assert_eq!([read("host.key"), read("broker.key")], keys, "a certificate without its key would be of no use");
    let broker = Inspected::read(&read("broker.pem")).unwrap();
    assert_eq!((broker.at.as_slice(), broker.server), (&["broker.site".to_string(), "10.0.0.7".into()][..], true));
    let ours = Inspected::read(&read("host.pem")).unwrap();
    assert!(ours.name == "fedtt-host" && ours.client);
    fedtt_identity::inspect::check_signed(&read("broker.pem"), &read("ca.pem")).unwrap();
    fedtt_identity::request::check_pair(&read("host.pem"), &read("host.key")).unwrap();
    assert!(host.keep_up(late).renewed.is_empty(), "once");
    // A broker that has not read it shows the one before.
    assert!(kept.objection(&[0; 3], late).unwrap().contains("cannot be read"));

    // Without the folder it is said until when things go on.
    std::fs::remove_file(folder.join("broker.key")).unwrap();
    let stuck = host.keep_up(late + 80 * DAY);
    assert_eq!(stuck.renewed.len(), 1);
    assert!(stuck.problems[0].contains("cannot be renewed") && stuck.problems[0].contains("broker.key"), "{stuck:?}");
    // Nothing lasts longer than the authority.
    let end = host.authority().unwrap().expires();
    std::fs::write(folder.join("broker.key"), &keys[1]).unwrap();
    assert_eq!(host.keep_up(end - 10 * DAY).renewed, [(Party::Host, end), (Party::Broker, end)]);
    let over = host.keep_up(end - 5 * DAY);
    assert!(over.renewed.is_empty() && over.problems[0].contains("authority ends"), "{over:?}");
    // Somebody else's is left alone.
    let (other, key) = fedtt_identity::Authority::generate(&fleet(), began).unwrap();
    let other = fedtt_identity::Authority::new(&other, &key).unwrap();
    let asked = fedtt_identity::CheckedRequest::check(&request("b", &keys[1], None).unwrap()).unwrap();
    let foreign = other.broker(&asked, &["b".into()], began + 10 * DAY).unwrap().pem;
    std::fs::write(folder.join("broker.pem"), &foreign).unwrap();
    let kept = host.keep_up(began);
    assert!(kept.renewed.is_empty() && kept.problems[0].contains("where it is from"), "{kept:?}");
    assert_eq!(read("broker.pem"), foreign);
}
