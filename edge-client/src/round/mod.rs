//! A device's side of the protocol, without I/O: what happened goes in, what is to be done comes out.
//!
//! ```text
//!            manifest names us          state at hand            result saved
//! waiting -----------------> fetching -----------------> training ------------> delivering
//!    ^                          |                           |                       |
//!    +------- refused, or the round is over ---------------+--------- verdict ------+
//! ```
//!
//! [`Participant`] is all runs of a device; each is one of the phases, which have a file each. Effects are carried out in
//! their order: what is saved stands before what relies on it, so that after a crash at any point the device goes on to
//! the same messages.

mod admission;
mod delivering;
mod event;
mod fetching;
mod kept;
mod ledger;
mod notice;
mod parcels;
mod participant;
mod policy;
mod retry;
mod run;
#[cfg(test)]
mod tests;
mod training;
mod waiting;

#[cfg(test)]
pub(crate) use kept::stored;

pub use event::{Adoption, Effect, Event, Job, Prepared, Slot};
pub use notice::{Notice, What};
pub use participant::{Found, Identity, Participant, receive};
pub use policy::{LocalPolicy, QuietHours};
pub use retry::Pace;
