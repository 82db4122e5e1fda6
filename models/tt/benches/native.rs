//! What a training step costs beside the graph: cores to L and R, gradients back to cores, the optimiser.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use criterion::{Criterion, criterion_group, criterion_main};
use fedtt_tt::config::Rank;
use fedtt_tt::optim::Rule;
use fedtt_tt::{AdapterConfig, AdapterSet, HeadSize, Optimiser, OptimiserConfig, Site, SiteKind, TrainMask};
use ndarray::ArrayD;

fn sites(blocks: usize, hidden: usize) -> Vec<Site> {
    let kinds = [(SiteKind::Attention, "attention"), (SiteKind::Mlp, "mlp")];
    let all = (0..blocks).flat_map(|block| kinds.map(|(kind, name)| (block, kind, name)));
    all.map(|(block, kind, name)| Site { id: format!("{block}.{name}"), kind, block, input: hidden, output: hidden })
        .collect()
}

fn step(c: &mut Criterion) {
    for (hidden, blocks, rank) in [(384, 6, 5), (4096, 32, 8)] {
        let config = AdapterConfig { rank: Some(Rank::Uniform(rank)), ..AdapterConfig::default() };
        let head = Some(HeadSize { input: hidden, outputs: 6 });
        let mut set = AdapterSet::new(&config, &sites(blocks, hidden), head, 0).unwrap();
        let mut optimiser = Optimiser::new(OptimiserConfig::default(), set.groups(1.0, Rule::AdamW)).unwrap();
        let mask = set.mask(&TrainMask::default());
        let gradients: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
        let of_parameters = set.pullback(&gradients).unwrap();
        let name = format!("hidden {hidden} x {} sites", 2 * blocks);
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        group.bench_function("materialise", |b| b.iter(|| set.graph_inputs()));
        group.bench_function("pullback", |b| b.iter(|| set.pullback(&gradients).unwrap()));
        group.bench_function("optimiser", |b| {
            b.iter(|| optimiser.step(&mut set.values_mut(), &of_parameters, &mask).unwrap())
        });
        group.bench_function("whole step", |b| {
            b.iter(|| {
                let inputs = set.graph_inputs();
                let pulled = set.pullback(&gradients).unwrap();
                optimiser.step(&mut set.values_mut(), &pulled, &mask).unwrap();
                inputs
            })
        });
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
