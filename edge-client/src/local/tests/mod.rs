#![allow(clippy::unwrap_used, clippy::panic)]

mod rounds;
mod update;

use fedtt_wire::DeviceName;

use super::order::Batches;

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

#[test]
fn batches_are_full_and_a_pass_sees_every_example_once() {
    let lengths: Vec<usize> = (0..50).map(|i| 3 + (i * 7) % 20).collect();
    let draw = |seed, round, name: &str, count| {
        let name = device(name);
        let mut batches = Batches::new(&lengths, 8, seed, round, &name);
        (0..count).map(|_| batches.next()).collect::<Vec<_>>()
    };
    let batches = draw(1, 0, "a", 100);
    assert!(batches.iter().all(|batch| batch.len() == 8));
    let mut seen = vec![0; 50];
    batches.concat().into_iter().for_each(|example| seen[example] += 1);
    assert!(seen.iter().all(|n| (15..=17).contains(n)), "{seen:?}");
    assert_eq!(batches, draw(1, 0, "a", 100));
    for other in [draw(2, 0, "a", 100), draw(1, 1, "a", 100), draw(1, 0, "b", 100)] {
        assert_ne!(other, batches);
    }
}

#[test]
fn a_device_with_few_examples_has_all_of_them_in_every_batch() {
    let name = device("a");
    let mut batches = Batches::new(&[5, 3, 4], 16, 0, 0, &name);
    for _ in 0..9 {
        let mut batch = batches.next();
        batch.sort_unstable();
        assert_eq!(batch, [0, 1, 2]);
    }
}
