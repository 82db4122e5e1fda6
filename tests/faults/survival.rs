//! Whatever is killed and lost on the way, the adapter is the undisturbed run's, and every device counted once a round.

use std::time::{Duration, Instant};

use fedtt_link::testing::{Faults, Mosquitto};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fleet::Fleet;

const ROUNDS: u64 = 10;
const DEVICES: [&str; 4] = ["site-0", "site-1", "site-2", "site-3"];
const WORK: Duration = Duration::from_millis(20);

/// Kills in all, unless the environment variable says another number.
const KILLS: u32 = 50;
const KILLS_VARIABLE: &str = "FEDTT_KILLS";
/// The first run's seed, unless this environment variable says another.
const SEED_VARIABLE: &str = "FEDTT_SEED";
/// Most kills in one run: each holds it up.
const KILLS_A_RUN: u32 = 17;

const FAULTS: Faults =
    Faults { drop: 0.02, duplicate: 0.05, corrupt: 0.02, delay: 0.1, longest_delay: Duration::from_millis(40) };

const PLAN: &str = "name = 'survival'\nrounds = 10\nseed = 7\n[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\n\
    [adapter]\nbottleneck = 8\nrank = 2\n[selection]\nmin = 4\n[collection]\ncount = { min = 4 }\n[wire]\nchunk = 4096\n";

fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
}

/// A run in which at most `most` processes are killed at points drawn from `seed`. Returns the adapter and how many were.
fn disturbed(mosquitto: Option<Mosquitto>, seed: u32, most: u32) -> (Vec<u8>, u32) {
    let within = mosquitto.is_none();
    let mut fleet = Fleet::start(mosquitto, seed.into(), PLAN, DEVICES.len(), WORK);
    fleet.set_faults(FAULTS);
    let mut random = ChaCha8Rng::seed_from_u64(seed.into());
    let mut killed = [0; 3];
    while killed.iter().sum::<u32>() < most {
        for _ in 0..random.random_range(0..10) {
            if fleet.finished || fleet.hear(Duration::from_millis(300)).is_none() {
                break;
            }
        }
        if fleet.finished {
            break;
        }
        // Not an event but a point between two, wherever it falls.
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        let victim = random.random_range(0..3);
        killed[victim] += 1;
        match victim {
            0 => fleet.kill_host(),
            1 => fleet.kill_device(random.random_range(0..DEVICES.len())),
            _ => fleet.kill_broker(),
        }
    }
    fleet.wait();
    let mistreated = fleet.mistreated();
    let (_, adapter) = fleet.outcome(ROUNDS, &DEVICES);
    let [hosts, devices, brokers] = killed;
    let broker = if within { "hosts for their brokers" } else { "brokers" };
    eprintln!(
        "seed {seed}: killed {hosts} hosts, {devices} devices, {brokers} {broker}; lost, doubled, damaged, held back: {mistreated:?}"
    );
    (adapter, killed.iter().sum())
}

#[test]
fn killed_hosts_devices_and_brokers_and_mistreated_messages_change_nothing() {
    let began = Instant::now();
    let undisturbed = {
        let mut fleet = Fleet::start(None, 0, PLAN, DEVICES.len(), WORK);
        fleet.wait();
        fleet.outcome(ROUNDS, &DEVICES).1
    };
    let (mut seed, kills) = (number(SEED_VARIABLE, 1), number(KILLS_VARIABLE, KILLS));
    let mut killed = 0;
    while killed < kills {
        let mosquitto = if seed % 2 == 0 { Mosquitto::start().unwrap() } else { None };
        let (adapter, more) = disturbed(mosquitto, seed, (kills - killed).min(KILLS_A_RUN));
        assert!(adapter == undisturbed, "seed {seed}: the adapter is not the undisturbed run's");
        killed += more;
        seed += 1;
    }
    eprintln!("{killed} kills in {:?}", began.elapsed());
}
