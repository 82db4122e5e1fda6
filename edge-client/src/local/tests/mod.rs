#![allow(clippy::unwrap_used, clippy::panic)]

mod rounds;
mod update;

use fedtt_wire::DeviceName;

use super::mix::Deck;
use super::order::Batches;

fn whole(examples: usize) -> Vec<Deck> {
    vec![Deck { examples: (0..examples).collect(), share: 1.0 }]
}

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

#[test]
fn batches_are_full_and_a_pass_sees_every_example_once() {
    let lengths: Vec<usize> = (0..50).map(|i| 3 + (i * 7) % 20).collect();
    let draw = |seed, round, name: &str, count| {
        let name = device(name);
        let mut batches = Batches::new(&lengths, whole(50), 8, seed, round, &name);
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
    let mut batches = Batches::new(&[5, 3, 4], whole(3), 16, 0, 0, &name);
    for _ in 0..9 {
        let mut batch = batches.next();
        batch.sort_unstable();
        assert_eq!(batch, [0, 1, 2]);
    }
}

#[test]
fn decks_have_their_shares_of_the_batches_and_are_passed_through_alike() {
    let lengths = vec![7; 40];
    let name = device("a");
    let decks = vec![
        Deck { examples: (0..36).collect(), share: 0.7 },
        Deck { examples: vec![36], share: 0.05 },
        Deck { examples: (37..40).collect(), share: 0.25 },
    ];
    let mut batches = Batches::new(&lengths, decks, 10, 0, 0, &name);
    let mut seen = vec![0; 40];
    for pool in 1..=50 {
        for _ in 0..4 {
            let batch = batches.next();
            assert_eq!(batch.len(), 10);
            batch.into_iter().for_each(|example| seen[example] += 1);
        }
        let drawn = |examples: std::ops::Range<usize>| seen[examples].iter().sum::<usize>();
        // 40 places a pool: 28, 2 and 10.
        assert_eq!((drawn(0..36), drawn(36..37), drawn(37..40)), (28 * pool, 2 * pool, 10 * pool));
    }
    for deck in [0..36, 37..40] {
        let (least, most) = (seen[deck.clone()].iter().min().unwrap(), seen[deck].iter().max().unwrap());
        assert!(most - least <= 1, "{seen:?}");
    }
}
