//! What is told of devices in a round: they cannot fill log and disk.

use std::collections::BTreeMap;

use fedtt_wire::DeviceName;

/// Events that devices can cause at will, and are told of one device and of all in a round. The others are only counted.
const MOST_TOLD: (usize, usize) = (32, 1000);

/// How often devices have caused such events in the round.
#[derive(Default)]
pub(super) struct Told {
    by: BTreeMap<DeviceName, usize>,
    all: usize,
}

impl Told {
    /// Whether one more is told.
    pub(super) fn one_more(&mut self, device: &DeviceName) -> bool {
        if self.all >= MOST_TOLD.1 {
            return false;
        }
        let times = self.by.entry(device.clone()).or_default();
        let told = *times < MOST_TOLD.0;
        *times += usize::from(told);
        self.all += usize::from(told);
        told
    }
}
