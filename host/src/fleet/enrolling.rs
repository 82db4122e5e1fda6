//! Answers to devices that ask for certificates.
//!
//! A request may come several times, as brokers lose and repeat messages: it gets the certificate it got before. What is
//! answered has been written down before.

use fedtt_identity::CheckedRequest;
use fedtt_identity::message::{Answer, Ask, Claimed, Enroll, Granted, Outcome, Renew};
use fedtt_wire::{DeviceName, Digest, FleetName, RequestId, Topic, Topics};

use super::ledger::{Answered, Early, Grant};
use super::registrar::certificate;
use super::{FleetError, Registrar, now};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// A device was let in.
    In(DeviceName),
    /// A device of the fleet got a new certificate.
    Renewed(DeviceName),
    /// It was answered before, and again.
    Again(DeviceName),
    /// It was refused, for this reason.
    Refused(DeviceName, String),
}

/// An answer to publish.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// What became of the request.
    pub what: Enrolled,
}

type Given = Result<(String, bool), String>;

impl Registrar {
    /// Answers a request; `None` where it is not answered yet, and comes again.
    ///
    /// # Errors
    /// When the message is no request, is forged, or what is given cannot be written down: there is no answer then.
    pub fn answer(&mut self, id: &RequestId, payload: &[u8]) -> Result<Option<Reply>, FleetError> {
        match Ask::read(payload)? {
            Ask::Enroll(asked) => self.answer_enrolment(id, &asked).map(Some),
            Ask::Renew(asked) => self.answer_renewal(id, &asked),
        }
    }

    fn answer_enrolment(&mut self, id: &RequestId, asked: &Claimed<'_, Enroll>) -> Result<Reply, FleetError> {
        let (to, topic) = (asked.digest(), Topics::new(&self.fleet).name(&Topic::Answer(id.clone())));
        let Some(grant) = self.ledger.begin()?.grant(&asked.claim().token)? else {
            let name = asked.claim().name.clone();
            let reason = "this host knows no such token: it is another host's, or expired long ago".to_string();
            let answer = Answer { to, time: now(), outcome: Outcome::Refused(reason.clone()) };
            return Ok(Reply { topic, payload: answer.unproven()?, what: Enrolled::Refused(name, reason) });
        };
        let asked = asked.prove(&grant.token)?;
        let given = self.enroll(&grant, asked, to)?;
        let what = match &given {
            Ok((_, true)) => Enrolled::In(asked.name.clone()),
            Ok((_, false)) => Enrolled::Again(asked.name.clone()),
            Err(reason) => Enrolled::Refused(asked.name.clone(), reason.clone()),
        };
        let payload = self.outcome(to, given)?.seal_for(&grant.token)?;
        Ok(Reply { topic, payload, what })
    }

    /// The certificate for a device with a token, and whether it is a new one; or why there is none.
    fn enroll(&mut self, grant: &Grant, asked: &Enroll, to: Digest) -> Result<Given, FleetError> {
        let id = grant.token.id();
        if let Err(reason) = self.same_fleet(&asked.fleet) {
            return Ok(Err(reason));
        }
        let used = self.ledger.begin()?.used(id, &asked.name)?;
        let known = self.devices.get(&asked.name);
        let revoked = known.as_ref().is_some_and(|known| known.revoked.is_some());
        if let Some(used) = used.filter(|used| used.ask == to) {
            return Ok(match revoked {
                true => Err(format!("{} is revoked", asked.name)),
                false => Ok((used.certificate, false)),
            });
        }
        if let Err(reason) = self.allowed(grant, asked)? {
            return Ok(Err(reason));
        }
        let other = known.as_ref().is_some_and(|known| known.enrolled && known.key != asked.key);
        if grant.name.is_none() && (other || revoked) {
            let taken = if revoked { "is revoked" } else { "is another device's name" };
            return Ok(Err(format!(
                "`{0}` {taken}: give this one another name, or a token of its own with `fedtt device enroll {0}`",
                asked.name
            )));
        }
        let request = match CheckedRequest::check(&asked.request).and_then(|r| r.named(asked.name.as_str())) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Err(error) = fedtt_identity::authority::check_name(&asked.name) {
            return Ok(Err(error.to_string()));
        }
        let issued = self.admit(&asked.name, asked.key, &request, |changes, issued| {
            let answered = Answered::new(to, issued, 0, now());
            changes.spend(grant, &asked.name, &answered)
        })?;
        Ok(Ok((issued.pem, true)))
    }

    fn same_fleet(&self, fleet: &FleetName) -> Result<(), String> {
        match *fleet == self.fleet {
            true => Ok(()),
            false => Err(format!("this is the host of fleet {}, not of {fleet}", self.fleet)),
        }
    }

    /// Whether a token still holds for a device.
    fn allowed(&self, grant: &Grant, asked: &Enroll) -> Result<Result<(), String>, FleetError> {
        let again = "make a new one with `fedtt device enroll`";
        if let Some(name) = grant.name.as_ref().filter(|name| **name != asked.name) {
            return Ok(Err(format!("the token is for `{name}`, not for `{}`", asked.name)));
        }
        if now() >= grant.expires {
            let end = fedtt_identity::inspect::date(grant.expires);
            return Ok(Err(format!("the token expired at {end}: {again}")));
        }
        if grant.left == 0 {
            let users = self.ledger.begin()?.users(grant.token.id())?;
            let by = users.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if users.len() > 3 { format!(" and {} more", users.len() - 3) } else { String::new() };
            return Ok(Err(format!("the token is used up, by {by}{more}: {again}")));
        }
        Ok(Ok(()))
    }

    fn answer_renewal(&mut self, id: &RequestId, asked: &Claimed<'_, Renew>) -> Result<Option<Reply>, FleetError> {
        let topics = Topics::new(&self.fleet);
        let (to, topic) = (asked.digest(), topics.name(&Topic::Answer(id.clone())));
        let name = asked.claim().name.clone();
        let Some(known) = self.devices.get(&name).filter(|known| known.enrolled) else {
            let reason = format!("`{name}` is not enrolled: `fedtt device enroll {name}` makes a token for it");
            let answer = Answer { to, time: now(), outcome: Outcome::Refused(reason.clone()) };
            let payload = answer.seal(&self.host, &topic)?;
            return Ok(Some(Reply { topic, payload, what: Enrolled::Refused(name, reason) }));
        };
        let asked = asked.prove(&known.key, &topics.name(&Topic::Ask(id.clone())))?;
        let given = match known.revoked {
            Some(_) => Err(format!("`{name}` is revoked: `fedtt device enroll {name}` lets it in again")),
            None => match self.renew(asked, to)? {
                Some(given) => given,
                None => return Ok(None),
            },
        };
        let what = match &given {
            Ok((_, true)) => Enrolled::Renewed(name),
            Ok((_, false)) => Enrolled::Again(name),
            Err(reason) => Enrolled::Refused(name, reason.clone()),
        };
        let payload = self.outcome(to, given)?.seal(&self.host, &topic)?;
        Ok(Some(Reply { topic, payload, what }))
    }

    /// As [`Registrar::enroll`], for a device of the fleet; `None` where it is too soon for an answer.
    fn renew(&mut self, asked: &Renew, to: Digest) -> Result<Option<Given>, FleetError> {
        if let Err(reason) = self.same_fleet(&asked.fleet) {
            return Ok(Some(Err(reason)));
        }
        if let Some(last) = self.ledger.begin()?.renewal(&asked.name)? {
            if last.ask == to {
                return Ok(Some(Ok((last.certificate, false))));
            }
            if last.count > asked.count {
                let reason = "a later request was answered already: this one is repeated by somebody, or the device's \
                              files are from a backup; enrol it anew";
                return Ok(Some(Err(reason.into())));
            }
            match last.early(asked.count, now()) {
                Some(Early::Soon) => return Ok(None),
                Some(Early::Needless(until)) => {
                    let until = fedtt_identity::inspect::date(until);
                    let reason =
                        format!("the certificate it has is new; there is no other before {until}: is its clock right?");
                    return Ok(Some(Err(reason)));
                }
                None => {}
            }
        }
        let request = match CheckedRequest::check(&asked.request).and_then(|r| r.named(asked.name.as_str())) {
            Ok(request) => request,
            Err(error) => return Ok(Some(Err(error.to_string()))),
        };
        let issued = self.issue(&request, &asked.name)?;
        let changes = self.ledger.begin()?;
        changes.tidy(now())?;
        changes.issued(&asked.name, &issued)?;
        changes.put_renewal(&asked.name, &Answered::new(to, &issued, asked.count, now()))?;
        changes.commit()?;
        self.devices.renewed(&asked.name, certificate(&issued))?;
        Ok(Some(Ok((issued.pem, true))))
    }

    fn outcome(&mut self, to: Digest, given: Given) -> Result<Answer, FleetError> {
        let outcome = match given {
            Err(reason) => Outcome::Refused(reason),
            Ok((certificate, _)) => {
                let (broker, enroll) = (self.met()?.broker(), self.met()?.enroll());
                let ca = self.authority()?.certificate().to_string();
                Outcome::Granted(Box::new(Granted { certificate, ca, host: self.host.public(), broker, enroll }))
            }
        };
        Ok(Answer { to, time: now(), outcome })
    }
}
