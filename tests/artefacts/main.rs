//! What leaves the system and what comes to devices by web: exported models, bundles, adapters.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fetching;
mod python;
