//! Renewing the device's certificate before it ends: with a third of its life left over the connection the device works
//! with, and once it has ended over the broker of enrolment.

use std::time::Duration;

use fedtt_link::{Link, LinkError, Publication, TlsFiles};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Told;
use super::telling::Tell;
use crate::identity::{Asked, Asking, EnrollError, Enrolled, Identity, Step, renew};

/// Waits before a request that is not answered is repeated, from the first to the last.
const REPEAT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// How long one way to ask is tried before the other.
const TURN: Duration = Duration::from_secs(900);
/// Longest wait without looking at the clock, which may be set.
const LOOK: Duration = Duration::from_secs(60);
/// Bounds of the wait after a renewal that failed, or one that a wrong clock asks for again: a tenth of the certificate's
/// life between them.
const PAUSE: (u64, u64) = (1, 3600);

/// Renews the certificate of an enrolled device until dropped.
pub(super) struct Renewing {
    topic: String,
    answers: mpsc::UnboundedSender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Renewing {
    /// Begins, where the device comes to its broker with the certificate of its enrolment.
    ///
    /// # Errors
    /// When the link has ended.
    pub(super) async fn start(
        identity: &Identity,
        enrolled: Option<Enrolled>,
        tls: Option<&TlsFiles>,
        link: &Link,
        tell: &Tell,
    ) -> Result<Option<Self>, super::DaemonError> {
        let Some(enrolled) = enrolled.filter(|_| tls == Some(&identity.tls())) else { return Ok(None) };
        let Some(topic) = Asking::answers_at_work(&enrolled) else { return Ok(None) };
        link.subscribe(topic.clone()).await?;
        let (answers, answered) = mpsc::unbounded_channel();
        let renewal = Renewal { identity: identity.clone(), link: link.clone(), tell: tell.clone(), answered };
        let task = tokio::spawn(renewal.run(enrolled));
        Ok(Some(Renewing { topic, answers, task }))
    }

    /// Takes a message, if it is an answer to a request for a certificate.
    pub(super) fn take(&self, topic: &str, payload: &[u8]) -> bool {
        let ours = topic == self.topic;
        if ours {
            // An error: the task is gone, and nobody asks any more.
            let _ = self.answers.send(payload.to_vec());
        }
        ours
    }
}

struct Renewal {
    identity: Identity,
    link: Link,
    tell: Tell,
    answered: mpsc::UnboundedReceiver<Vec<u8>>,
}

fn clock() -> u64 {
    super::now() / 1000
}

impl Renewal {
    async fn run(mut self, mut enrolled: Enrolled) {
        loop {
            while let Some(left) = enrolled.renew_at().checked_sub(clock()).filter(|left| *left > 0) {
                tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
            }
            match self.renew(&enrolled).await {
                Ok(renewed) => {
                    (self.tell)(Told::Renewed { expires: renewed.expires });
                    self.link.reconnect();
                    enrolled = renewed;
                }
                Err(error) => (self.tell)(Told::NotRenewed { reason: error.to_string(), expires: enrolled.expires }),
            }
            let life = enrolled.expires.saturating_sub(enrolled.issued);
            tokio::time::sleep(Duration::from_secs((life / 10).clamp(PAUSE.0, PAUSE.1))).await;
        }
    }

    /// Asks in turns over the connection the device works with, as long as the certificate holds, and over the broker of
    /// enrolment: either may be out of reach, and the broker's clock may be another than ours.
    async fn renew(&mut self, enrolled: &Enrolled) -> Result<Enrolled, EnrollError> {
        loop {
            let left = Duration::from_secs(enrolled.expires.saturating_sub(clock()));
            if let Ok(outcome) = tokio::time::timeout(TURN.min(left), self.at_work(enrolled)).await {
                return outcome;
            }
            if enrolled.enroll.is_empty() && left.is_zero() {
                let reason = "it has ended, and no broker to enrol at is known: enrol anew".to_string();
                return Err(EnrollError::Refused(reason));
            }
            if !enrolled.enroll.is_empty() {
                let tell = self.tell.clone();
                let told = move |step| {
                    if let Step::Disconnected { reason, retry_in } = step {
                        tell(Told::Disconnected { reason, retry_in });
                    }
                };
                if let Ok(outcome) = tokio::time::timeout(TURN, renew(&self.identity, enrolled, told)).await {
                    return outcome;
                }
            }
        }
    }

    /// Asks over the connection the device works with, until there is an answer.
    async fn at_work(&mut self, enrolled: &Enrolled) -> Result<Enrolled, EnrollError> {
        let mut wait = REPEAT.0;
        let asking = Asking::renew(&self.identity, enrolled, true)?;
        loop {
            let ask = Publication { topic: asking.topic(), payload: asking.bytes().to_vec().into(), retain: false };
            let answered = async {
                self.link.publish(ask).await?;
                loop {
                    let Some(answer) = self.answered.recv().await else { return Err(LinkError::Closed.into()) };
                    match asking.take(&answer)? {
                        Asked::Done(renewed) => return Ok(renewed),
                        Asked::Refused(reason) => return Err(EnrollError::Refused(reason)),
                        Asked::Nothing(_) => {}
                    }
                }
            };
            match tokio::time::timeout(wait, answered).await {
                Ok(outcome) => return outcome,
                Err(_) => wait = (wait * 2).min(REPEAT.1),
            }
        }
    }
}
