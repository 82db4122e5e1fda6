#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fedtt_identity::message::{Answer, Ask, Granted, Outcome};
use fedtt_identity::{Authority, CheckedRequest, Seed, Token};
use fedtt_wire::{DeviceName, Digest, FleetName, SigningKey};

use super::{Asked, Asking, Carried, Enrolled, Identity};

const NOW: u64 = 1_795_000_000;

fn name(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

/// A host, as far as a device sees it.
struct Host {
    authority: Authority,
    key: SigningKey,
    token: Token,
}

impl Host {
    fn new() -> Self {
        let (certificate, key) = Authority::generate(&FleetName::new("north").unwrap(), NOW).unwrap();
        let authority = Authority::new(&certificate, &key).unwrap();
        Host { authority, key: SigningKey::from_seed(&[9; 32]).unwrap(), token: Token::generate().unwrap() }
    }

    fn seed(&self) -> Seed {
        Seed {
            fleet: FleetName::new("north").unwrap(),
            broker: "mqtts://enroll:pw@broker.site:8884".into(),
            token: self.token.clone(),
            name: None,
            labels: vec!["orin".into()],
            expires: String::new(),
            ca: self.authority.certificate().into(),
        }
    }

    fn granted(&self, request: &str, device: &str, expires: u64) -> Granted {
        let request = CheckedRequest::check(request).unwrap();
        Granted {
            certificate: self.authority.device(&request, &name(device), expires).unwrap().pem,
            ca: self.authority.certificate().into(),
            host: self.key.public(),
            broker: "mqtts://broker.site:8883".into(),
            enroll: "mqtts://enroll:pw@broker.site:8884".into(),
        }
    }

    /// What the device asks, granted for a certificate of `device` that ends at `expires`.
    fn answer(&self, asking: &Asking, device: &str, expires: u64) -> Vec<u8> {
        match Ask::read(asking.bytes()).unwrap() {
            Ask::Enroll(asked) => {
                let request = asked.prove(&self.token).unwrap().request.clone();
                let outcome = Outcome::Granted(Box::new(self.granted(&request, device, expires)));
                Answer { to: asked.digest(), time: NOW, outcome }.seal_for(&self.token).unwrap()
            }
            Ask::Renew(asked) => {
                let request = asked.claim().request.clone();
                let outcome = Outcome::Granted(Box::new(self.granted(&request, device, expires)));
                let answer = Answer { to: asked.digest(), time: NOW + 60, outcome };
                answer.seal(&self.key, &asking.answer_topic()).unwrap()
            }
        }
    }
}

fn files(identity: &Identity) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(identity.folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn enroll(state: &Path, host: &Host) -> (Identity, Enrolled) {
    let identity = Identity::open(state).unwrap();
    let asking = Asking::enroll(&identity, &host.seed(), &name("d1")).unwrap();
    let Asked::Done(enrolled) = asking.take(&host.answer(&asking, "d1", NOW + 90)).unwrap() else { panic!() };
    (identity, enrolled)
}

#[test]
fn a_device_asks_the_same_until_it_is_answered_and_then_has_all_it_needs() {
    let state = tempfile::tempdir().unwrap();
    let host = Host::new();
    let identity = Identity::open(state.path()).unwrap();
    let asking = Asking::enroll(&identity, &host.seed(), &name("d1")).unwrap();
    // After a crash, whoever answered, answers the same.
    let again = Asking::enroll(&Identity::open(state.path()).unwrap(), &host.seed(), &name("d1")).unwrap();
    assert_eq!((asking.bytes(), asking.id()), (again.bytes(), again.id()));
    let other = Asking::enroll(&identity, &Host::new().seed(), &name("d1")).unwrap();
    assert_ne!(other.bytes(), again.bytes(), "another token, another request");
    let asking = Asking::enroll(&identity, &host.seed(), &name("d1")).unwrap();
    assert_eq!(asking.topic(), format!("fedtt/north/enroll/{}/ask", asking.id()));

    // What others answer is not taken for the host's word.
    let (thief, answer) =
        (Host { token: Token::generate().unwrap(), ..Host::new() }, host.answer(&asking, "d1", NOW + 90));
    let refusal =
        |reason: &str| Answer { to: Digest::of(asking.bytes()), time: NOW, outcome: Outcome::Refused(reason.into()) };
    let forged = refusal("go away").seal_for(&thief.token).unwrap();
    assert_eq!(asking.take(&forged).unwrap(), Asked::Nothing(Some("go away".into())));
    assert_eq!(asking.take(b"hello").unwrap(), Asked::Nothing(None));
    assert_eq!(identity.enrolled().unwrap(), None);
    // Nor is a certificate taken that is another's.
    let odd = asking.take(&host.answer(&asking, "d2", NOW + 90)).unwrap_err().to_string();
    assert!(odd.contains("for `d2`, not for `d1`") && identity.enrolled().unwrap().is_none(), "{odd}");

    let Asked::Done(enrolled) = asking.take(&answer).unwrap() else { panic!() };
    assert_eq!(identity.enrolled().unwrap().as_ref(), Some(&enrolled));
    assert_eq!((enrolled.broker.as_str(), enrolled.labels.len()), ("mqtts://broker.site:8883", 1));
    assert_eq!((enrolled.issued, enrolled.expires, enrolled.renew_at()), (NOW, NOW + 90, NOW + 60));
    assert_eq!(identity.host().unwrap(), Some(host.key.public()));
    assert_eq!(files(&identity), ["ca.pem", "device.pem", "enrolled.toml", "host.pub", "signing.key"]);
    for file in ["device.pem", "enrolled.toml", "signing.key"] {
        let mode = fs::metadata(identity.folder().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(identity.certificate().unwrap().name, "d1");
}

#[test]
fn a_provable_refusal_ends_a_request() {
    let state = tempfile::tempdir().unwrap();
    let host = Host::new();
    let identity = Identity::open(state.path()).unwrap();
    let asking = Asking::enroll(&identity, &host.seed(), &name("d1")).unwrap();
    let answer = Answer { to: Digest::of(asking.bytes()), time: NOW, outcome: Outcome::Refused("expired".into()) };
    assert_eq!(asking.take(&answer.seal_for(&host.token).unwrap()).unwrap(), Asked::Refused("expired".into()));
    assert_eq!(files(&identity), ["signing.key"]);
}

#[test]
fn a_renewal_is_taken_from_the_host_alone_and_replaces_certificate_and_key() {
    let state = tempfile::tempdir().unwrap();
    let host = Host::new();
    let (identity, enrolled) = enroll(state.path(), &host);
    let before = fs::read(identity.folder().join("device.pem")).unwrap();
    let asking = Asking::renew(&identity, &enrolled, true).unwrap();
    assert_eq!(asking.topic(), "fedtt/north/enroll/d1/ask");
    assert_eq!(Some(asking.answer_topic()), Asking::answers_at_work(&enrolled));
    assert_eq!(Asking::renew(&identity, &enrolled, true).unwrap().bytes(), asking.bytes());
    let imposter = Host { key: SigningKey::from_seed(&[8; 32]).unwrap(), ..Host::new() };
    assert_eq!(asking.take(&imposter.answer(&asking, "d1", NOW + 900)).unwrap(), Asked::Nothing(None));
    let Asked::Done(renewed) = asking.take(&host.answer(&asking, "d1", NOW + 150)).unwrap() else { panic!() };
    assert_eq!((renewed.count, renewed.issued, renewed.expires), (1, NOW + 60, NOW + 150));
    assert_eq!(identity.enrolled().unwrap(), Some(renewed.clone()));
    assert_ne!(fs::read(identity.folder().join("device.pem")).unwrap(), before);
    // Over the broker of enrolment nobody else is to guess where the answer comes.
    let asking = Asking::renew(&identity, &renewed, false).unwrap();
    assert_eq!(asking.id().as_str().strip_prefix("e-").unwrap().len(), 32);
}

#[test]
fn what_is_carried_by_hand_is_for_the_key_that_stayed() {
    let state = tempfile::tempdir().unwrap();
    let host = Host::new();
    let identity = Identity::open(state.path()).unwrap();
    let carried = |request: &str| {
        let granted = host.granted(request, "d1", NOW + 90);
        let fleet = FleetName::new("north").unwrap();
        Carried { certificate: granted.certificate, ca: granted.ca, host: granted.host, fleet, broker: granted.broker }
    };
    let stranger = fedtt_identity::request::private_key().unwrap();
    let stranger = fedtt_identity::request::request("d1", &stranger, None).unwrap();
    let early = identity.carry_back(carried(&stranger), NOW).unwrap_err().to_string();
    assert!(early.contains("fedtt-edge enroll --csr"), "{early}");
    let request = identity.request(&name("d1")).unwrap();
    assert_eq!(CheckedRequest::check(&request).unwrap().signer(), Some(identity.key().public()));
    let wrong = identity.carry_back(carried(&stranger), NOW).unwrap_err().to_string();
    assert!(wrong.contains("not that of the certificate"), "{wrong}");
    let enrolled = identity.carry_back(carried(&request), NOW).unwrap();
    assert_eq!((enrolled.name.as_str(), enrolled.enroll.as_str()), ("d1", ""));
    assert_eq!(identity.host().unwrap(), Some(host.key.public()));
}
