//! Asking the host for a certificate over the broker of enrolment, for as long as it takes.

use std::time::Duration;

use fedtt_identity::Seed;
use fedtt_link::{Delivery, Link, LinkConfig, LinkError, Publication, TlsFiles};
use fedtt_wire::DeviceName;

use super::asking::{Asked, Asking};
use super::enrolled::Enrolled;
use super::{Identity, IdentityError, refused};
use crate::files::write_atomically;

/// Waits before a request that is not answered is repeated: the first, doubled each time up to the last.
const REPEAT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The authority of a seed, while it is used.
const SEED_AUTHORITY: &str = "seed-ca.pem";

/// Why a device has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Files cannot be read or written, or what was given does not fit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The broker's address or its TLS files cannot be used.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The host says no.
    #[error("the host refuses: {0}")]
    Refused(String),
}

/// Something to tell people while a device enrols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The broker is reached, and the host asked.
    Asked,
    /// The broker is not reached.
    Disconnected {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// What somebody says who cannot prove to be the host.
    Hint(String),
}

/// Enrols `name` with a seed, trying until the host answers. May be cancelled, and begun anew: it asks the same again.
///
/// # Errors
/// When the host refuses, or files cannot be written.
pub async fn enroll(
    identity: &Identity,
    seed: &Seed,
    name: &DeviceName,
    tell: impl Fn(Step),
) -> Result<Enrolled, EnrollError> {
    let ca = identity.folder().join(SEED_AUTHORITY);
    write_atomically(&ca, seed.ca.as_bytes()).map_err(refused("write", &ca))?;
    let asking = Asking::enroll(identity, seed, name)?;
    let enrolled = ask(&asking, &seed.broker, TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() }, tell).await?;
    super::enrolled::remove(&ca)?;
    Ok(enrolled)
}

/// Renews a certificate that has expired, over the broker of enrolment.
///
/// # Errors
/// As [`enroll`].
pub async fn renew(identity: &Identity, enrolled: &Enrolled, tell: impl Fn(Step)) -> Result<Enrolled, EnrollError> {
    let asking = Asking::renew(identity, enrolled, false)?;
    let tls = TlsFiles { ca: identity.tls().ca, ..TlsFiles::default() };
    ask(&asking, &enrolled.enroll, tls, tell).await
}

async fn ask(asking: &Asking, broker: &str, tls: TlsFiles, tell: impl Fn(Step)) -> Result<Enrolled, EnrollError> {
    let broker: fedtt_link::BrokerUrl = broker.parse()?;
    let tls = broker.is_tls().then_some(tls);
    let (link, mut inbox) = Link::connect(LinkConfig { tls, ..LinkConfig::new(broker, asking.id().as_str()) }).await?;
    link.subscribe(asking.answer_topic()).await?;
    let mut wait = REPEAT.0;
    let mut connected = false;
    loop {
        tokio::select! {
            delivery = inbox.recv() => match delivery {
                Some(Delivery::Connected { .. }) => {
                    (connected, wait) = (true, REPEAT.0);
                    publish(&link, asking).await?;
                    tell(Step::Asked);
                }
                Some(Delivery::Disconnected { reason, retry_in }) => {
                    connected = false;
                    tell(Step::Disconnected { reason, retry_in });
                }
                Some(Delivery::Message { payload, .. }) => match asking.take(&payload)? {
                    Asked::Done(enrolled) => {
                        link.shutdown().await;
                        return Ok(enrolled);
                    }
                    Asked::Refused(reason) => {
                        link.shutdown().await;
                        return Err(EnrollError::Refused(reason));
                    }
                    Asked::Nothing(Some(hint)) => tell(Step::Hint(hint)),
                    Asked::Nothing(None) => {}
                },
                None => return Err(LinkError::Closed.into()),
            },
            () = tokio::time::sleep(wait), if connected => {
                wait = (wait * 2).min(REPEAT.1);
                publish(&link, asking).await?;
            }
        }
    }
}

async fn publish(link: &Link, asking: &Asking) -> Result<(), LinkError> {
    let payload = asking.bytes().to_vec().into();
    link.publish(Publication { topic: asking.topic(), payload, retain: false }).await
}
