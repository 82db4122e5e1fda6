//! What the board tells of itself: memory, heat, power, load.
//!
//! [`Board`] reads the files of Linux (and of NVIDIA's Jetson boards) below a root folder, `/` in earnest, and runs
//! nothing. Every reading is optional: what a board does not tell, or tells in absurd numbers, is absent. [`Limits`] are
//! what its owner allows, [`Gate`] decides by them whether training may go on, and [`Meter`] adds up the energy it takes.

mod energy;
mod files;
mod gate;
mod limits;
mod load;
mod memory;
mod power_mode;
mod rails;
mod supply;
#[cfg(test)]
pub(crate) mod tests;
mod thermal;
mod unit;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use energy::Meter;
pub use gate::{Gate, Objection};
pub use limits::Limits;
pub use load::Load;
pub use memory::{Memory, peak};
pub use power_mode::PowerMode;
pub use rails::{Rail, Rails};
pub use supply::Supply;
pub use thermal::Zone;

use unit::Unit;

/// A board, by the folder its system's files are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    root: PathBuf,
}

/// All a board tells at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Readings {
    /// What the board is called.
    pub model: Option<String>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Its thermal zones.
    pub zones: Vec<Zone>,
    /// The power mode it is in.
    pub mode: Option<PowerMode>,
    /// Power it takes in all, watts.
    pub watts: Option<f64>,
    /// What it is fed from.
    pub supply: Supply,
    /// What its processors do.
    pub load: Option<Load>,
}

impl Default for Board {
    fn default() -> Self {
        Board::at("/")
    }
}

impl Board {
    /// The board whose system's files are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Board { root: root.into() }
    }

    /// What the board tells now.
    pub fn read(&self) -> Readings {
        Readings {
            model: self.model(),
            memory: memory::read(&self.root, memory::OWN),
            zones: thermal::read(&self.root),
            mode: power_mode::read(&self.root),
            watts: self.rails().watts(),
            supply: supply::read(&self.root),
            load: load::read(&self.root),
        }
    }

    /// What [`Limits`] are about: all but names and power, and load where it is limited.
    pub(crate) fn read_limited(&self, limits: &Limits) -> Readings {
        Readings {
            memory: memory::read(&self.root, memory::OWN),
            zones: thermal::read(&self.root),
            mode: power_mode::read(&self.root),
            supply: supply::read(&self.root),
            load: limits.max_load.and_then(|_| load::read(&self.root)),
            ..Readings::default()
        }
    }

    /// Its power rails.
    pub fn rails(&self) -> Rails {
        Rails::find(&self.root)
    }

    /// Bytes that programs can still have.
    pub fn available(&self) -> Option<u64> {
        memory::read(&self.root, memory::OWN).map(|memory| memory.available)
    }

    /// The memory that another process can have, by its number: its control groups are not those of this one.
    pub(crate) fn memory_of(&self, process: u32) -> Option<Memory> {
        memory::read(&self.root, &process.to_string())
    }

    /// The memory that a service of systemd can have once it is started, if there is one of this name that keeps its state in the folder
    /// `state`.
    pub(crate) fn memory_of_service(&self, name: &str, state: &Path) -> Option<Memory> {
        let unit = Unit::read(&self.root, name)?;
        unit.keeps_state_in(state).then(|| memory::of_fresh(&self.root, |total| unit.memory(total)))?
    }

    fn model(&self) -> Option<String> {
        let device_tree = ["proc/device-tree/model", "sys/firmware/devicetree/base/model"];
        let firmware = ["sys/class/dmi/id/product_name"];
        device_tree.iter().chain(&firmware).find_map(|path| files::text(&self.root.join(path)))
    }

    /// The folder its system's files are in.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Readings {
    /// The hottest of its zones.
    pub fn hottest(&self) -> Option<&Zone> {
        self.zones.iter().max_by(|a, b| a.celsius.total_cmp(&b.celsius))
    }
}
