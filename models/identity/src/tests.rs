#![allow(clippy::unwrap_used, clippy::panic)]

use fedtt_wire::{DeviceName, Digest, FleetName, SigningKey};

use crate::authority::{AUTHORITY_LIFE, Authority, ENROLL, HOST};
use crate::inspect::{Inspected, check_signed, date};
use crate::message::{Answer, Ask, Enroll, Granted, Outcome, Renew, nonce};
use crate::password::mosquitto_line;
use crate::request::{check_pair, private_key, request};
use crate::{CheckedRequest, IdentityError, Seed, Token};

const NOW: u64 = 1_795_000_000;

fn fleet() -> FleetName {
    FleetName::new("north").unwrap()
}

fn name(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn authority() -> Authority {
    let (certificate, key) = Authority::generate(&fleet(), NOW).unwrap();
    Authority::new(&certificate, &key).unwrap()
}

fn checked(name: &str) -> CheckedRequest {
    CheckedRequest::check(&request(name, &private_key().unwrap(), None).unwrap()).unwrap()
}

#[test]
fn an_authority_lasts_ten_years_and_signs_for_devices_host_and_broker() {
    let authority = authority();
    let ca = Inspected::read(authority.certificate()).unwrap();
    assert_eq!((ca.name.as_str(), ca.authority), ("FedTT fleet north", true));
    assert_eq!((ca.not_before, ca.not_after), (0, NOW + AUTHORITY_LIFE));

    let key = private_key().unwrap();
    let signer = SigningKey::from_seed(&[1; 32]).unwrap().public();
    let asked = CheckedRequest::check(&request("d1", &key, Some(&signer)).unwrap()).unwrap().named("d1").unwrap();
    assert_eq!((asked.signer(), checked("d1").signer()), (Some(signer), None));
    let issued = authority.device(&asked, &name("d1"), NOW + 60).unwrap();
    let device = Inspected::read(&issued.pem).unwrap();
    assert_eq!((device.name.as_str(), device.issuer.as_str()), ("d1", "FedTT fleet north"));
    assert_eq!((&device.serial, device.not_before, device.not_after), (&issued.serial, 0, NOW + 60));
    assert!(device.client && !device.server && !device.authority && device.at.is_empty());
    check_pair(&issued.pem, &key).unwrap();
    check_signed(&issued.pem, authority.certificate()).unwrap();

    let host = Inspected::read(&authority.host(&checked("whoever"), NOW + 60).unwrap().pem).unwrap();
    assert!(host.name == HOST && host.client && !host.server);
    let at = ["broker.site".to_string(), "10.0.0.7".to_string()];
    let issued = authority.broker(&checked("whoever"), &at, NOW + 2 * AUTHORITY_LIFE).unwrap();
    let broker = Inspected::read(&issued.pem).unwrap();
    assert!(broker.at == at && broker.server && !broker.client);
    assert_eq!(broker.not_after, ca.not_after, "no certificate outlives its authority");
    assert_ne!(authority.device(&asked, &name("d1"), NOW).unwrap().serial, device.serial);
}

#[test]
fn nobody_gets_a_certificate_for_another_name_or_for_the_hosts() {
    let authority = authority();
    let other = checked("d1").named("d2").err().unwrap();
    assert_eq!(other, IdentityError::OtherName { found: "d1".into(), wanted: "d2".into() });
    for reserved in [HOST, ENROLL, "e-d1"] {
        let refused = authority.device(&checked(reserved), &name(reserved), NOW).unwrap_err();
        assert_eq!(refused, IdentityError::Reserved(reserved.into()));
    }
    assert!(authority.broker(&checked("b"), &[], NOW).is_err());
    let altered = request("d1", &private_key().unwrap(), None).unwrap().replacen("MI", "MJ", 1);
    assert!(CheckedRequest::check(&altered).is_err());
    let long = format!("{}{}", request("d1", &private_key().unwrap(), None).unwrap(), "\n".repeat(8192));
    assert!(CheckedRequest::check(&long).err().unwrap().to_string().contains("more than 8192"));
}

#[test]
fn what_does_not_belong_together_is_noticed() {
    let (first, other) = (Authority::generate(&fleet(), NOW).unwrap(), Authority::generate(&fleet(), NOW).unwrap());
    assert_eq!(Authority::new(&first.0, &other.1).unwrap_err(), IdentityError::OtherKey);
    let issued = Authority::new(&first.0, &first.1).unwrap().device(&checked("d1"), &name("d1"), NOW).unwrap();
    assert_eq!(check_signed(&issued.pem, &other.0).unwrap_err(), IdentityError::Stranger("d1".into()));
    assert_eq!(check_pair(&issued.pem, &other.1).unwrap_err(), IdentityError::OtherKey);
    assert!(Authority::new(&issued.pem, &first.1).unwrap_err().to_string().contains("certificate of `d1`"));
    for not_pem in ["", "hello", &first.1] {
        assert!(Inspected::read(not_pem).unwrap_err().to_string().starts_with("not a certificate"), "{not_pem}");
    }
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let issued = authority().device(&checked("d1"), &name("d1"), NOW).unwrap();
    let inspected = Inspected::read(&issued.pem).unwrap();
    inspected.check_time(0).unwrap();
    inspected.check_time(NOW).unwrap();
    let late = inspected.check_time(NOW + 1).unwrap_err().to_string();
    assert!(late.contains("valid until 2026-11-18") && late.contains("clock"), "{late}");
    let early = Inspected { not_before: 100, ..inspected }.check_time(5).unwrap_err().to_string();
    assert!(early.contains("1970-01-01 00:00:05 UTC: check this machine's clock"), "{early}");
    assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
}

#[test]
fn a_list_of_the_revoked_is_signed_and_names_them() {
    use x509_parser::prelude::{CertificateRevocationList, FromDer};
    let authority = authority();
    let serials: Vec<_> = (0..2).map(|_| authority.device(&checked("d"), &name("d"), NOW).unwrap().serial).collect();
    let list = authority.revoke(serials.iter().map(|serial| (serial, NOW)), 7, NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(list.as_bytes()).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&pem.contents).unwrap();
    let named: Vec<String> = list.iter_revoked_certificates().map(|entry| entry.raw_serial_as_string()).collect();
    let expected: Vec<String> = serials.iter().map(|serial| serial.to_string()).collect();
    assert_eq!(named.iter().map(|serial| serial.replace(':', "")).collect::<Vec<_>>(), expected);
    assert_eq!(list.last_update().timestamp(), NOW as i64);
    let (_, ca) = x509_parser::pem::parse_x509_pem(authority.certificate().as_bytes()).unwrap();
    list.verify_signature(ca.parse_x509().unwrap().public_key()).unwrap();
    assert!(authority.revoke([], 1, NOW).is_ok());
}

fn enroll(token: &Token) -> Enroll {
    Enroll {
        token: token.id().clone(),
        fleet: fleet(),
        name: name("d1"),
        request: request("d1", &private_key().unwrap(), None).unwrap(),
        key: SigningKey::from_seed(&[1; 32]).unwrap().public(),
        nonce: nonce().unwrap(),
    }
}

fn granted(host: &SigningKey) -> Outcome {
    Outcome::Granted(Box::new(Granted {
        certificate: "c".into(),
        ca: "a".into(),
        host: host.public(),
        broker: "mqtts://b".into(),
        enroll: "mqtts://b:8884".into(),
    }))
}

#[test]
fn who_has_the_token_is_believed_and_nobody_else() {
    let (token, other) = (Token::generate().unwrap(), Token::generate().unwrap());
    let host = SigningKey::from_seed(&[2; 32]).unwrap();
    let sent = enroll(&token);
    let ask = sent.seal(&token).unwrap();
    assert!(!ask.windows(32).any(|window| token.to_string().as_bytes().windows(32).any(|secret| secret == window)));
    let Ask::Enroll(claimed) = Ask::read(&ask).unwrap() else { panic!() };
    assert_eq!(claimed.prove(&token).unwrap(), &sent);
    assert_eq!(claimed.prove(&other).unwrap_err(), IdentityError::Forged);

    let answer = Answer { to: claimed.digest(), time: NOW, outcome: granted(&host) };
    let bytes = answer.seal_for(&token).unwrap();
    assert_eq!(Answer::open_with(&token, &ask, &bytes).unwrap(), answer);
    assert_eq!(Answer::hint(&bytes), None);
    let another = enroll(&token).seal(&token).unwrap();
    assert_eq!(Answer::open_with(&token, &another, &bytes), Err(IdentityError::Forged));
    assert_eq!(Answer::open_with(&other, &ask, &bytes), Err(IdentityError::Forged));
    // The host's answer is no request, nor the other way round.
    assert!(Ask::read(&bytes).is_err());
    assert_eq!(Answer::open_with(&token, &ask, &ask), Err(IdentityError::Forged));
    for at in 0..ask.len() {
        let mut altered = ask.clone();
        altered[at] ^= 1;
        let believed = match Ask::read(&altered) {
            Ok(Ask::Enroll(claimed)) => claimed.prove(&token).is_ok(),
            _ => false,
        };
        assert!(!believed, "byte {at}");
    }
    for end in 0..ask.len() {
        assert!(Ask::read(&ask[..end]).is_err(), "{end} bytes");
    }
    let refusal = Answer { to: Digest::of(&ask), time: NOW, outcome: Outcome::Refused("no such\u{7} token".into()) };
    let bytes = refusal.unproven().unwrap();
    assert_eq!(Answer::hint(&bytes).unwrap(), "no such token");
    assert_eq!(Answer::open_with(&token, &ask, &bytes), Err(IdentityError::Forged));
}

#[test]
fn a_renewal_is_signed_by_both() {
    let (device, host) = (SigningKey::from_seed(&[1; 32]).unwrap(), SigningKey::from_seed(&[2; 32]).unwrap());
    let sent = Renew { fleet: fleet(), name: name("d1"), request: "r".into(), count: 3 };
    let ask = sent.seal(&device, "ask/d1").unwrap();
    let Ask::Renew(claimed) = Ask::read(&ask).unwrap() else { panic!() };
    assert_eq!(claimed.prove(&device.public(), "ask/d1").unwrap(), &sent);
    assert!(claimed.prove(&host.public(), "ask/d1").is_err());
    assert!(claimed.prove(&device.public(), "ask/d2").is_err());
    let answer = Answer { to: claimed.digest(), time: NOW, outcome: granted(&host) };
    let bytes = answer.seal(&host, "answer/d1").unwrap();
    assert_eq!(Answer::open(&host.public(), "answer/d1", &ask, &bytes).unwrap(), answer);
    assert!(Answer::open(&device.public(), "answer/d1", &ask, &bytes).is_err());
    let later = Renew { count: 4, ..sent }.seal(&device, "ask/d1").unwrap();
    assert_eq!(Answer::open(&host.public(), "answer/d1", &later, &bytes), Err(IdentityError::OtherRequest));
}

#[test]
fn a_seed_file_is_read_back_and_mistakes_in_it_are_named() {
    let seed = Seed {
        fleet: fleet(),
        broker: "mqtts://enroll:pw@broker.site:8884".into(),
        token: Token::generate().unwrap(),
        name: None,
        labels: vec!["orin".into()],
        expires: date(NOW),
        ca: authority().certificate().to_string(),
    };
    let text = seed.write().unwrap();
    assert!(text.starts_with("# Enrols devices") && text.contains("-----BEGIN CERTIFICATE-----\n"), "{text}");
    assert_eq!(Seed::read(&text).unwrap(), seed);
    let one = Seed { name: Some(name("d1")), labels: vec![], ..seed };
    assert_eq!(Seed::read(&one.write().unwrap()).unwrap(), one);
    for (from, to, part) in [
        ("fleet =", "fleeet =", "fleeet"),
        ("token = \"", "token = \"x", "16 hexadecimal digits"),
        ("north", "no/rth", "fleet name"),
    ] {
        let error = Seed::read(&text.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(part), "{to}: {error}");
    }
    let shown = format!("{seed:?}", seed = one.token);
    assert!(shown.len() < 24, "{shown}");
}

#[test]
fn a_password_line_is_of_mosquittos_form_and_salted() {
    let (first, second) = (mosquitto_line("enroll", "pw").unwrap(), mosquitto_line("enroll", "pw").unwrap());
    assert_ne!(first, second);
    let parts: Vec<&str> = first.trim().split('$').collect();
    assert_eq!((parts[0], parts[1], parts[2], parts[3].len(), parts[4].len()), ("enroll:", "7", "101", 16, 88));
}
