//! What devices say.

use fedtt_wire::message::{Chunk, Outcome, Presence, Refusal, SMALL, Verdict};
use fedtt_wire::{DeviceName, Message, RunId, Topic, WireError};

use super::assemblies::Added;
use super::{Coordinator, Device, Faulty, QUIET};
use crate::run::{Effect, RunError};
use crate::store::Changes;

/// As long devices that announce themselves are waited for.
const GATHERING: u64 = 2_000;

/// Most devices that are remembered.
const MOST_DEVICES: usize = 100_000;

impl Coordinator {
    pub(super) fn presence(&mut self, name: DeviceName, payload: &[u8], now: u64) {
        if payload.is_empty() {
            self.devices.remove(&name);
            return;
        }
        match Message::decode(payload, SMALL) {
            // A fleet of more is split; a flood of made-up names is not remembered.
            Ok(Message::Presence(_)) if self.devices.len() >= MOST_DEVICES && !self.devices.contains_key(&name) => {
                self.refused.foreign += 1;
            }
            Ok(Message::Presence(mut presence)) => {
                presence.problem = presence.problem.map(shortened);
                if let (began, until @ 1..) = self.gathering {
                    self.gathering.1 = until.max(now + QUIET).min(began + GATHERING);
                }
                let known = self.devices.remove(&name);
                let coming =
                    |presence: &Presence, bundle: &String| presence.online && presence.fetching.contains(bundle);
                for run in self.runs.values_mut() {
                    let bundle = &run.plan().model.bundle;
                    let before = known.as_ref().is_some_and(|device| coming(&device.presence, bundle));
                    if coming(&presence, bundle) && !before {
                        run.fetching(&name, now);
                    }
                }
                let problem_before = known.as_ref().and_then(|device| device.presence.problem.as_ref());
                if let Some(problem) = presence.problem.as_ref().filter(|_| presence.online)
                    && problem_before != Some(problem)
                {
                    let reason = format!("it takes part in nothing for now: {problem}");
                    self.effects.push(Effect::Warning { device: name.clone(), reason });
                }
                let last_refusal = known.and_then(|device| device.last_refusal);
                self.devices.insert(name, Device { presence, last_seen: now, last_refusal });
            }
            Ok(other) => self.drop_message(&name, format!("a {} as presence", other.what())),
            Err(error) => self.drop_message(&name, format!("presence: {error}")),
        }
    }

    /// Counts a message that makes no sense.
    fn drop_message(&mut self, device: &DeviceName, reason: String) {
        self.refused.malformed += 1;
        self.effects.push(Effect::Warning { device: device.clone(), reason });
    }

    pub(super) fn uplink(
        &mut self,
        device: &DeviceName,
        payload: &[u8],
        now: u64,
        changes: &Changes,
    ) -> Result<(), Faulty> {
        if let Some(known) = self.devices.get_mut(device) {
            known.last_seen = now;
        }
        let message = match Message::decode(payload, SMALL) {
            Ok(message) => message,
            Err(error) => {
                self.drop_message(device, error.to_string());
                self.object(device, &error);
                return Ok(());
            }
        };
        let run = match &message {
            Message::Chunk(chunk) => &chunk.run,
            Message::Progress(progress) => &progress.run,
            Message::Refusal(refusal) => &refusal.run,
            Message::Need(need) => &need.run,
            other => {
                let reason = format!("a {}, which is not for the host", other.what());
                self.drop_message(device, reason);
                return Ok(());
            }
        }
        .clone();
        let Some(found) = self.runs.get_mut(&run) else {
            self.refused.foreign += 1;
            let reason = format!("a {} of run `{run}`, which is not here", message.what());
            self.effects.push(Effect::Warning { device: device.clone(), reason });
            if let Message::Chunk(chunk) = message {
                let (round, update) = (chunk.round, chunk.parcel.digest);
                let outcome = Outcome::Late;
                self.say(device, Verdict { run, round, update, outcome });
            }
            return Ok(());
        };
        let outcome = match message {
            Message::Chunk(chunk) => return self.chunk(device, chunk, now, changes).map_err(|e| Faulty(run, e.into())),
            Message::Progress(progress) => {
                found.progressed(device, progress);
                Ok(())
            }
            Message::Need(need) => found.needed(&need, now),
            Message::Refusal(refusal) => {
                found.declined(device, &refusal, now);
                if let Some(known) = self.devices.get_mut(device) {
                    known.last_refusal = Some((refusal.run, shortened(refusal.reason)));
                }
                Ok(())
            }
            _ => Ok(()),
        };
        outcome.map_err(|e| Faulty(run, e.into()))
    }

    /// Takes a chunk of an update in, and the update once it is whole.
    fn chunk(&mut self, device: &DeviceName, chunk: Chunk, now: u64, changes: &Changes) -> Result<(), RunError> {
        let Some(run) = self.runs.get_mut(&chunk.run) else { return Ok(()) };
        let (round, parcel) = (chunk.round, chunk.parcel);
        let (digest, is_last) = (parcel.digest, chunk.index + 1 == parcel.chunks);
        if let Some(outcome) = run.settled(device, round) {
            // Once for an update, not for each of its chunks.
            return if is_last { run.settle(device, round, digest, outcome, now, changes) } else { Ok(()) };
        }
        if let Some(objection) = run.objection(device, round) {
            if is_last {
                run.refused(now, device, "foreign", objection.clone());
                return run.answer(device, round, digest, Outcome::Rejected(objection));
            }
            return Ok(());
        }
        let limit = run.layout().limit();
        match self.assemblies.add(device, chunk, limit, now)? {
            Added::Part { missing: Some(missing) } => run.answer(device, round, digest, Outcome::Missing(missing)),
            Added::Part { missing: None } => Ok(()),
            Added::Whole(message) => match *message {
                Message::Update(update) if update.run == *run.id() => {
                    run.updated(device, update, &parcel, now, changes)
                }
                _ => {
                    let reason = "not an update of this run".to_string();
                    run.refused(now, device, "foreign", reason.clone());
                    run.answer(device, round, digest, Outcome::Rejected(reason))
                }
            },
            Added::Malformed(error) => {
                run.refused(now, device, "malformed", error.to_string());
                run.answer(device, round, digest, Outcome::Rejected(error.to_string()))
            }
            Added::Damaged { error, missing } => {
                run.refused(now, device, "malformed", error.to_string());
                // Damage on the way is mended by sending all of it again.
                run.answer(device, round, digest, Outcome::Missing(missing))
            }
        }
    }

    /// Says what is wrong with a message that names no run.
    fn object(&mut self, device: &DeviceName, error: &WireError) {
        let Ok(run) = RunId::new("unknown") else { return };
        self.say(device, Refusal { run, round: 0, reason: error.to_string(), until: None });
    }

    fn say(&mut self, device: &DeviceName, message: impl Into<Message>) {
        if let Ok(payload) = message.into().encode(3) {
            self.effects.push(Effect::Publish { topic: Topic::Down(device.clone()), payload, retain: false });
        }
    }
}

/// What a device says for people, of a length that can be shown.
fn shortened(said: String) -> String {
    said.chars().take(500).collect()
}
