//! Before a round: the plan is announced, and whether this device can take part is found out once it is asked to.

use std::sync::Arc;

use fedtt_wire::message::RunPlan;
use fedtt_wire::{Digest, Layout, Message};

use super::kept::{State, Work};
use super::participant::Context;
use super::run::{Phase, Run};
use super::{Effect, Prepared, What};

/// Whether this device can take part in a run.
pub(super) enum Fit {
    /// Nobody has asked yet.
    Unknown,
    /// Its bundle is to be fetched, once anybody asks.
    Missing,
    /// Its bundle is being fetched.
    Fetching,
    /// The model is being loaded.
    Loading,
    /// It can.
    Fits {
        /// The values a run of fresh adapters begins with.
        initial: Option<State>,
        /// Examples it can train on.
        examples: u64,
    },
    /// It cannot.
    Unfit(String),
}

impl Fit {
    /// Before the model is loaded.
    fn at_first_sight(plan: &RunPlan, cx: &Context<'_>) -> Self {
        let bundle = &plan.plan.model.bundle;
        match plan.plan.validate() {
            Err(error) => Fit::Unfit(error.to_string()),
            Ok(()) if cx.identity.presence.bundles.contains(bundle) => Fit::Unknown,
            Ok(()) if cx.policy.fetch => Fit::Missing,
            Ok(()) => Fit::Unfit(format!("this device does not have the plan's bundle {bundle}")),
        }
    }

    pub(super) fn initial(&self) -> &Option<State> {
        match self {
            Fit::Fits { initial, .. } => initial,
            _ => &None,
        }
    }
}

impl Run {
    /// The run's plan is announced.
    pub(super) fn announced(&mut self, plan: RunPlan, cx: &mut Context<'_>) {
        self.unannounced = None;
        if self.plan.as_deref() == Some(&plan) {
            return;
        }
        if self.began().is_some_and(|began| plan.began < began) {
            return cx.ignore(&self.id, "a plan of an earlier run of this name");
        }
        let (name, values) = (plan.plan.name.clone(), plan.layout.values());
        cx.tell(&self.id, What::Announced { name, values });
        let digest = Message::from(plan.clone()).encode(0).ok().map(|bytes| Digest::of(&bytes));
        if self.plan.is_some() || self.work.plan.is_some_and(|kept| Some(kept) != digest) {
            // Another run of the same name.
            self.leave(cx);
            cx.effects.push(Effect::Forget(self.id.clone()));
            (self.state, self.work) = (None, Work::default());
            // One of the new run may have come before its plan.
            self.manifest.take_if(|manifest| manifest.began != plan.began);
            self.phase = Phase::Waiting;
            self.refused = None;
        }
        self.work.plan = digest;
        self.fit = Fit::at_first_sight(&plan, cx);
        self.plan = Some(Arc::new(plan));
        self.go_on(cx);
    }

    /// Whether this device can take part; `None` until the model is loaded.
    pub(super) fn fits(&mut self, plan: &Arc<RunPlan>, cx: &mut Context<'_>) -> Option<Result<(), String>> {
        match &self.fit {
            Fit::Unknown => {
                self.fit = Fit::Loading;
                cx.tell(&self.id, What::Preparing);
                cx.effects.push(Effect::Prepare(plan.clone()));
                None
            }
            Fit::Missing => {
                self.fit = Fit::Fetching;
                let bundle = plan.plan.model.bundle.clone();
                cx.tell(&self.id, What::FetchingBundle { bundle: bundle.clone(), have: 0, bytes: 0 });
                cx.effects.push(Effect::Fetch(bundle));
                None
            }
            Fit::Fetching | Fit::Loading => None,
            Fit::Fits { examples, .. } if *examples < cx.policy.min_examples => {
                Some(Err(format!("{examples} examples; this device trains on at least {}", cx.policy.min_examples)))
            }
            Fit::Fits { .. } => Some(Ok(())),
            Fit::Unfit(reason) => Some(Err(reason.clone())),
        }
    }

    /// Whether it is known that it cannot.
    pub(super) fn is_unfit(&self) -> bool {
        matches!(self.fit, Fit::Unfit(_))
    }

    /// What the device works with has changed. What it refused for the sake of a problem that is gone it may do now.
    pub(super) fn found(&mut self, mended: bool, cx: &mut Context<'_>) {
        if let (Fit::Unknown | Fit::Missing | Fit::Fits { .. } | Fit::Unfit(_), Some(plan)) = (&self.fit, &self.plan) {
            self.fit = Fit::at_first_sight(plan, cx);
        }
        if mended {
            self.refused = None;
        }
        self.go_on(cx);
    }

    /// What kept this device out may have been put right, such as a file that was missing.
    pub(super) fn reconsider(&mut self, cx: &Context<'_>) {
        if let (Fit::Unfit(_), Some(plan)) = (&self.fit, &self.plan) {
            self.fit = Fit::at_first_sight(plan, cx);
        }
    }

    /// A bundle has come, or could not be had.
    pub(super) fn fetched(&mut self, bundle: &str, outcome: &Result<(), String>, cx: &mut Context<'_>) {
        let awaited = self.plan.as_ref().is_some_and(|plan| plan.plan.model.bundle == bundle);
        if !awaited || !matches!(self.fit, Fit::Missing | Fit::Fetching) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.fit = Fit::Unknown;
                self.go_on(cx);
            }
            Err(reason) => {
                self.fit = Fit::Unfit(format!("bundle {bundle} is not here: {reason}"));
                self.go_on(cx);
                // The next round is another occasion.
                self.fit = Fit::Missing;
            }
        }
    }

    /// The model was loaded, or could not be.
    pub(super) fn prepared(&mut self, outcome: Result<Prepared, String>, cx: &mut Context<'_>) {
        let (Fit::Loading, Some(plan)) = (&self.fit, &self.plan) else { return };
        self.fit = match outcome {
            Err(reason) => Fit::Unfit(reason),
            Ok(prepared) => match difference(&plan.layout, &prepared.layout) {
                Some(reason) => Fit::Unfit(reason),
                None => Fit::Fits { initial: Some(State::new(prepared.initial)), examples: prepared.examples },
            },
        };
        self.go_on(cx);
    }
}

/// How the tensors a plan announces differ from those its model has here.
fn difference(announced: &Layout, own: &Layout) -> Option<String> {
    if announced == own {
        return None;
    }
    let odd = announced.0.iter().zip(&own.0).find(|(theirs, ours)| theirs != ours);
    Some(match odd {
        Some((theirs, ours)) => format!(
            "the host's tensor {} {:?} is {} {:?} here: the programs differ in version",
            theirs.name, theirs.shape, ours.name, ours.shape
        ),
        None => format!(
            "the host's adapter has {} tensors, this device's {}: the programs differ in version",
            announced.0.len(),
            own.0.len()
        ),
    })
}
