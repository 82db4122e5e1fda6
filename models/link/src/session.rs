//! The client's side of an MQTT session, without I/O: what waits, what is unacknowledged, what is subscribed.

use std::collections::{BTreeSet, HashSet, VecDeque};

use bytes::BytesMut;
use tokio::sync::OwnedSemaphorePermit;

use crate::Publication;
use crate::packet;

/// Something the broker has to acknowledge.
#[derive(Debug)]
pub(crate) enum Request {
    Publish {
        publication: Publication,
        /// What it takes up of the queue, given back on its acknowledgement.
        _room: Option<OwnedSemaphorePermit>,
    },
    Subscribe(String),
    Unsubscribe(String),
}

/// Requests on their way at one time: few enough that a repetition after a lost connection is short.
const WINDOW: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Session {
    waiting: VecDeque<Waiting>,
    /// In the order sent.
    unacknowledged: VecDeque<(u16, Request)>,
    /// The ids of `unacknowledged`, and of what waits to be sent again.
    ids: HashSet<u16>,
    last_id: u16,
    /// What the broker has granted.
    subscribed: BTreeSet<String>,
}

/// A request with the id it had on an earlier connection.
#[derive(Debug)]
struct Waiting {
    request: Request,
    id: Option<u16>,
}

impl Session {
    pub(crate) fn ask(&mut self, request: Request) {
        self.waiting.push_back(Waiting { request, id: None });
    }

    /// Whether everything asked is acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unacknowledged.is_empty()
    }

    /// A new connection stands: what the last one left unacknowledged goes first, and a broker that has forgotten the
    /// session is asked for the subscriptions again.
    pub(crate) fn begin(&mut self, session_present: bool) {
        for (id, request) in std::mem::take(&mut self.unacknowledged).into_iter().rev() {
            self.waiting.push_front(Waiting { request, id: Some(id) });
        }
        if !session_present {
            for filter in std::mem::take(&mut self.subscribed) {
                self.waiting.push_front(Waiting { request: Request::Subscribe(filter), id: None });
            }
        }
    }

    /// Writes what may be sent now until `out` holds `limit` bytes; returns how many publications were written.
    pub(crate) fn write(&mut self, out: &mut BytesMut, limit: usize) -> u64 {
        let mut publications = 0;
        while out.len() < limit && self.unacknowledged.len() < WINDOW {
            let Some(Waiting { request, id }) = self.waiting.pop_front() else { break };
            let again = id.is_some();
            let id = id.unwrap_or_else(|| self.free_id());
            match &request {
                Request::Publish { publication, .. } => {
                    packet::publish(publication, id, again, out);
                    publications += 1;
                }
                Request::Subscribe(filter) => packet::subscribe(filter, id, out),
                Request::Unsubscribe(filter) => packet::unsubscribe(filter, id, out),
            }
            self.unacknowledged.push_back((id, request));
        }
        publications
    }

    /// Ends when an id is free, as at most a window of the 65,535 is taken.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.ids.insert(self.last_id) {
                return self.last_id;
            }
        }
    }

    fn acknowledged(&mut self, id: u16) -> Option<Request> {
        let place = self.unacknowledged.iter().position(|(taken, _)| *taken == id)?;
        self.ids.remove(&id);
        self.unacknowledged.remove(place).map(|(_, request)| request)
    }

    /// Acknowledgements of what was not asked are of no consequence.
    pub(crate) fn published(&mut self, id: u16) {
        self.acknowledged(id);
    }

    /// Errors with the filter the broker refuses.
    pub(crate) fn subscribed(&mut self, id: u16, granted: bool) -> Result<(), String> {
        match self.acknowledged(id) {
            Some(Request::Subscribe(filter)) if granted => {
                self.subscribed.insert(filter);
                Ok(())
            }
            Some(Request::Subscribe(filter)) => {
                let refused = filter.clone();
                self.subscribed.insert(filter);
                Err(refused)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn unsubscribed(&mut self, id: u16) {
        if let Some(Request::Unsubscribe(filter)) = self.acknowledged(id) {
            self.subscribed.remove(&filter);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn publication(n: u8) -> Request {
        let publication = Publication { topic: format!("t/{n}"), payload: vec![n; 10].into(), retain: false };
        Request::Publish { publication, _room: None }
    }

    /// Topics and filters in the order written, with their ids.
    fn written(session: &mut Session, limit: usize) -> Vec<(String, u16)> {
        let before = session.unacknowledged.len();
        session.write(&mut BytesMut::new(), limit);
        let sent = session.unacknowledged.iter().skip(before);
        sent.map(|(id, request)| match request {
            Request::Publish { publication, .. } => (publication.topic.clone(), *id),
            Request::Subscribe(filter) => (format!("+{filter}"), *id),
            Request::Unsubscribe(filter) => (format!("-{filter}"), *id),
        })
        .collect()
    }

    #[test]
    fn what_is_unacknowledged_is_sent_again_first_and_in_order() {
        let mut session = Session::default();
        (0..4).for_each(|n| session.ask(publication(n)));
        session.begin(false);
        assert_eq!(written(&mut session, 50).len(), 3);
        session.published(2);
        session.begin(true);
        let again = written(&mut session, usize::MAX);
        assert_eq!(again, [("t/0".into(), 1), ("t/2".into(), 3), ("t/3".into(), 4)]);
        [1, 3, 4].into_iter().for_each(|id| session.published(id));
        assert!(session.is_idle());
    }

    #[test]
    fn subscriptions_are_made_again_when_the_broker_has_forgotten_them() {
        let mut session = Session::default();
        session.ask(Request::Subscribe("a".into()));
        session.ask(Request::Subscribe("b".into()));
        session.begin(false);
        written(&mut session, usize::MAX);
        session.subscribed(1, true).unwrap();
        session.begin(true);
        assert_eq!(written(&mut session, usize::MAX), [("+b".into(), 2)]);
        session.subscribed(2, true).unwrap();
        session.ask(Request::Unsubscribe("a".into()));
        written(&mut session, usize::MAX);
        session.unsubscribed(3);
        session.begin(false);
        assert_eq!(written(&mut session, usize::MAX), [("+b".into(), 4)]);
        assert_eq!(session.subscribed(4, false).unwrap_err(), "b");
        session.begin(false);
        assert_eq!(written(&mut session, usize::MAX).len(), 1, "a refused subscription is tried again");
    }

    #[test]
    fn ids_in_use_are_not_given_out_and_the_window_holds() {
        let mut session = Session { last_id: u16::MAX - 1, ..Session::default() };
        (0..200).for_each(|n| session.ask(publication(n)));
        session.begin(false);
        let first = written(&mut session, usize::MAX);
        assert_eq!(first.len(), WINDOW);
        assert_eq!(first[0].1, u16::MAX);
        assert_eq!(first[1].1, 1);
        session.last_id = 0;
        session.published(2);
        assert_eq!(written(&mut session, usize::MAX)[0].1, 2, "1 is in use, 2 is free");
        session.published(60_000);
    }

    #[test]
    fn room_is_given_back_on_the_acknowledgement() {
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(10));
        let permit = room.clone().try_acquire_many_owned(7).unwrap();
        let mut session = Session::default();
        let publication = Publication { topic: "t".into(), payload: bytes::Bytes::new(), retain: false };
        session.ask(Request::Publish { publication, _room: Some(permit) });
        session.begin(false);
        session.write(&mut BytesMut::new(), usize::MAX);
        assert_eq!(room.available_permits(), 3);
        session.published(1);
        assert_eq!(room.available_permits(), 10);
    }
}
