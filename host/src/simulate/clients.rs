//! Virtual clients at work: threads that each hold the frozen backbone once and train one client after another.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedtt_edge::local::{LocalData, LocalError, LocalMemory, LocalResult, PlanModel, RoundWork};
use fedtt_wire::message::Manifest;
use fedtt_wire::{DeviceName, Plan};
use ndarray::ArrayD;

/// One virtual client.
pub(super) struct Client {
    pub(super) name: DeviceName,
    pub(super) data: LocalData,
    pub(super) memory: LocalMemory,
    /// The memory before the update of this round, should that not be counted.
    pub(super) before: Option<(u32, LocalMemory)>,
    /// Bytes it has sent and, beside what all receive, received.
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Trains `cohort` (places in `clients`) from `globals`, on as many threads as there are models.
pub(super) fn train(
    models: &mut [PlanModel],
    clients: &[Client],
    cohort: &[usize],
    plan: &Plan,
    manifest: &Manifest,
    globals: &[ArrayD<f32>],
    done: &(dyn Fn(usize) + Sync),
) -> Result<BTreeMap<usize, LocalResult>, LocalError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    let work = |model: &mut PlanModel| -> Result<(), LocalError> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(&place) = cohort.get(at) else { return Ok(()) };
            let client = &clients[place];
            let work = RoundWork {
                round: manifest.round,
                goal: manifest.goal,
                mask: &manifest.mask,
                rate: manifest.rate,
                globals,
                device: &client.name,
            };
            let result = model.train(plan, &work, &client.data, &client.memory, &|| false, &mut |_| {})?;
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(place, result);
            done(at + 1);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = models.iter_mut().map(|model| scope.spawn(|| work(model))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(LocalError::Stopped)))
    })?;
    Ok(results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
