//! Room for bundles.

use std::collections::{BTreeMap, BTreeSet};

use fedtt_wire::RunId;
use fedtt_wire::message::RunPlan;

use super::Settings;
use crate::fetch::{Held, Shelf};

/// Keeps the shelf of bundles within its bounds.
pub(super) struct Room {
    shelf: Shelf,
    keep_bytes: u64,
    /// The bundle of each run that was prepared, if it is on the shelf.
    in_use: BTreeMap<RunId, Option<Held>>,
}

impl Room {
    pub(super) fn new(settings: &Settings) -> Self {
        let shelf = Shelf::of(&settings.state);
        Room { shelf, keep_bytes: settings.fetch.keep_bytes, in_use: BTreeMap::new() }
    }

    /// A run's model is loaded. Only now, as an old bundle is kept until the new one has loaded.
    pub(super) fn prepared(&mut self, plan: &RunPlan) {
        self.in_use.insert(plan.run.clone(), self.shelf.hold(&plan.plan.model.bundle).ok());
        // That there is no room is the next fetch's trouble.
        let _ = self.shelf.make_room(self.keep_bytes, &BTreeSet::new());
    }

    /// A run is over.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.in_use.remove(run);
    }
}
