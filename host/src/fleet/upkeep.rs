//! The certificates of the broker and of the host itself: the host, which has the authority, renews them in the broker's folder
//! with a third of their life left.
//!
//! Each keeps its private key: a certificate is one file, there as it was before or as it is after, and whoever reads it while it
//! is replaced finds the key that belongs to it.

use std::path::Path;
use std::time::Duration;

use fedtt_identity::authority::HOST;
use fedtt_identity::inspect::{check_signed, date};
use fedtt_identity::request::request;
use fedtt_identity::{CheckedRequest, Inspected};

use super::deployment::{Deployment, place};
use super::error::of;
use super::{FleetError, Registrar};

/// Bounds of the time between two looks, in seconds: a tenth of a certificate's life between them.
const LOOK: (u64, u64) = (1, 6 * 3600);
/// Before an authority ends all that it signed has to be made anew, which takes people their time; in seconds.
const AUTHORITY_NOTICE: u64 = 365 * 86_400;
/// A certificate the host does not renew is for people to renew, who need time; in seconds.
const NOTICE: u64 = 14 * 86_400;

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The one the host comes to the broker with.
    Host,
    /// The broker's.
    Broker,
}

/// What came of a look at the certificates.
#[derive(Debug)]
pub struct Upkeep {
    /// What was renewed, and until when each holds.
    pub renewed: Vec<(Party, u64)>,
    /// What people have to see to.
    pub problems: Vec<String>,
    /// What the broker is to show of itself; absent where it is not looked after here.
    pub broker: Option<Inspected>,
    /// The command that has the broker read its files anew; empty where there is none.
    pub reload: Vec<String>,
    /// When to look again.
    pub again: Duration,
}

impl Party {
    /// In a sentence.
    pub fn whose(self) -> &'static str {
        match self {
            Party::Host => "the host's",
            Party::Broker => "the broker's",
        }
    }

    fn files(self) -> (&'static str, &'static str) {
        match self {
            Party::Host => ("host.pem", "host.key"),
            Party::Broker => ("broker.pem", "broker.key"),
        }
    }
}

impl Registrar {
    /// The command that has the broker read its files anew; empty where there is none.
    pub(super) fn reload(&self) -> Vec<String> {
        match (self.settings.on_revoke.as_slice(), &self.deployment) {
            ([], Some(deployment)) => deployment.on_revoke.clone(),
            (command, _) => command.to_vec(),
        }
    }

    /// Renews what is due at `now`, in Unix seconds, and tells what else the certificates need.
    pub fn keep_up(&mut self, now: u64) -> Upkeep {
        let again = Duration::from_secs(LOOK.1);
        let (renewed, problems) = (Vec::new(), Vec::new());
        let mut upkeep = Upkeep { renewed, problems, broker: None, reload: self.reload(), again };
        let Some(deployment) = self.deployment.clone() else { return upkeep };
        upkeep.again = Duration::from_secs((deployment.life.seconds() / 10).clamp(LOOK.0, LOOK.1));
        for party in [Party::Host, Party::Broker] {
            if let Err(error) = self.keep_one_up(party, &deployment, now, &mut upkeep) {
                upkeep.problems.push(format!("{} certificate is not looked after: {error}", party.whose()));
            }
        }
        match self.authority().map(fedtt_identity::Authority::expires) {
            Ok(end) if end.saturating_sub(now) < AUTHORITY_NOTICE => upkeep.problems.push(format!(
                "the fleet's authority ends at {}: by then set the fleet up anew, in another state folder, and enrol its devices there",
                date(end)
            )),
            Ok(_) => {}
            Err(error) => upkeep.problems.push(format!("the fleet's authority: {error}")),
        }
        upkeep
    }

    fn keep_one_up(
        &mut self,
        party: Party,
        deployment: &Deployment,
        now: u64,
        upkeep: &mut Upkeep,
    ) -> Result<(), FleetError> {
        let (pem, key) = party.files();
        let (pem, key) = (deployment.folder.join(pem), deployment.folder.join(key));
        let text = |path: &Path| std::fs::read_to_string(path).map_err(of(path));
        let held = text(&pem)?;
        let mut shown = Inspected::read(&held)?;
        let (life, left) = (deployment.life.seconds(), shown.not_after.saturating_sub(now));
        let authority = self.authority()?;
        if check_signed(&held, authority.certificate()).is_err() {
            if left < NOTICE {
                let (whose, end) = (party.whose(), date(shown.not_after));
                upkeep
                    .problems
                    .push(format!("{whose} certificate {} ends at {end}: renew it where it is from", pem.display()));
            }
        } else if left < life / 3 && shown.not_after < authority.expires() {
            let renew = || {
                let name = if party == Party::Host { HOST } else { deployment.host.as_str() };
                let request = CheckedRequest::check(&request(name, &text(&key)?, None)?)?;
                let issued = match party {
                    Party::Host => authority.host(&request, now + life),
                    Party::Broker => authority.broker(&request, &shown.at, now + life),
                }?;
                let group = deployment.group.filter(|_| party == Party::Broker);
                place(&pem, issued.pem.as_bytes(), 0o644, group)?;
                Ok::<_, FleetError>(Inspected::read(&issued.pem)?)
            };
            match renew() {
                Ok(fresh) => {
                    upkeep.renewed.push((party, fresh.not_after));
                    shown = fresh;
                }
                Err(error) => {
                    let (whose, end) = (party.whose(), date(shown.not_after));
                    upkeep.problems.push(format!("{whose} certificate ends at {end} and cannot be renewed: {error}"));
                }
            }
        }
        if party == Party::Broker {
            upkeep.broker = Some(shown);
        }
        Ok(())
    }
}

impl Upkeep {
    /// What is wrong with the certificate the broker shows (DER), if anything is.
    pub fn objection(&self, shown: &[u8], now: u64) -> Option<String> {
        let shown = match Inspected::read_der(shown) {
            Ok(shown) => shown,
            Err(error) => return Some(format!("the broker's certificate cannot be read: {error}")),
        };
        let end = date(shown.not_after);
        match &self.broker {
            Some(wanted) if wanted.serial != shown.serial && wanted.not_after > shown.not_after => Some(format!(
                "the broker goes on with a certificate that ends at {end}, though there is one until {}: have it read its files \
                 anew, with SIGHUP or a restart; where it runs on another machine, bring it broker.pem",
                date(wanted.not_after)
            )),
            None if shown.not_after.saturating_sub(now) < NOTICE => {
                Some(format!("the broker's certificate ends at {end}: renew it where it is from"))
            }
            _ => None,
        }
    }
}
