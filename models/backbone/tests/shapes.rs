//! Inferred shapes and values of every fixture against what ONNX Runtime makes, at more than one batch and length.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fedtt_backbone::export::{WeightsFile, to_model};
use fedtt_backbone::import;
use fedtt_backbone::ir::{Attr, DType, Graph, Node, Port};
use fedtt_backbone::shape::{Facts, sizes};
use fedtt_runtime::ort_engine::{Optimisation, OrtEngine, OrtOptions};
use fedtt_runtime::{Engine, Session, SessionOptions, Tensor};
use ndarray::{ArrayD, IxDyn};

/// The fixtures and the engine, or word that the engine is missing.
fn ground() -> Option<(Vec<PathBuf>, OrtEngine)> {
    let folder = Path::new(option_env!("FEDTT_SHARED_FOUND").unwrap_or_default()).join("fixtures");
    let families = std::fs::read_dir(&folder).unwrap();
    let options = OrtOptions { optimisation: Optimisation::None, threads: 1, ..OrtOptions::default() };
    let engine = match OrtEngine::new(options) {
        Ok(engine) => engine,
        Err(e) => {
            eprintln!("not run: {e}");
            return None;
        }
    };
    let files = families.flat_map(|family| std::fs::read_dir(family.unwrap().path()).into_iter().flatten());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    // Fused operators are refused by name elsewhere.
    files.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".onnx") && !name.starts_with("ort-fused")
    });
    files.sort();
    assert!(!files.is_empty(), "{} has no fixtures", folder.display());
    Some((files, engine))
}

fn load(engine: &OrtEngine, graph: &Graph, path: &Path) -> Box<dyn Session> {
    let weights = WeightsFile::new(&path.with_extension("onnx.data"));
    let model = to_model(graph, weights.as_ref()).unwrap();
    engine.load(&model, &SessionOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Ids and positions within every vocabulary, and a mask with padding on the right.
fn feeds(graph: &Graph, batch: usize, sequence: usize) -> Vec<(String, Tensor)> {
    let element = |name: &str, row: usize, at: usize| match name {
        "attention_mask" => i64::from(at == 0 || at + row < sequence),
        "position_ids" => at as i64,
        "token_type_ids" => 0,
        _ => (3 + 7 * row + 5 * at) as i64 % 90,
    };
    let feed = |port: &Port| {
        let array = ArrayD::from_shape_fn(IxDyn(&[batch, sequence]), |index| element(&port.name, index[0], index[1]));
        (port.name.clone(), Tensor::I64(array))
    };
    graph.inputs.iter().map(feed).collect()
}

fn run(session: &mut dyn Session, feeds: &[(String, Tensor)], outputs: &[String]) -> Vec<Tensor> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    session.run(&feeds, &outputs.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

/// A node that makes `{name}~{op}`, an output of integers.
fn observe(graph: &mut Graph, op: &str, name: &str) -> String {
    let output = format!("{name}~{op}");
    let attrs = match op {
        "Cast" => BTreeMap::from([("to".to_string(), Attr::Int(DType::I64.onnx()))]),
        _ => BTreeMap::new(),
    };
    let node =
        Node { op: op.into(), inputs: vec![name.into()], outputs: vec![output.clone()], attrs, ..Node::default() };
    graph.nodes.push(node);
    graph.outputs.push(Port { name: output.clone(), dtype: DType::I64, shape: None });
    output
}

fn ints(tensor: &Tensor) -> Vec<i64> {
    tensor.as_i64().unwrap().iter().copied().collect()
}

#[test]
#[cfg_attr(not(shared), ignore = "needs the fixtures beside the repository")]
fn every_inferred_fact_is_what_the_engine_makes() {
    let Some((files, engine)) = ground() else { return };
    let (mut floats, mut float_known, mut all, mut all_known, mut values) = (0, 0, 0, 0, 0);
    for path in files {
        let graph = import::read(&path).unwrap();
        let facts = Facts::of_graph(&graph);
        let made = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
        let names: Vec<String> = made.cloned().collect();
        let mut observed = graph.clone();
        let shapes: Vec<String> = names.iter().map(|name| observe(&mut observed, "Shape", name)).collect();
        let valued: Vec<&String> = names.iter().filter(|name| facts.value(name).is_some()).collect();
        let casts: Vec<String> = valued.iter().map(|name| observe(&mut observed, "Cast", name)).collect();
        let mut session = load(&engine, &observed, &path);
        for (batch, sequence) in [(3, 7), (1, 1), (2, 12)] {
            let feeds = feeds(&graph, batch, sequence);
            let at = sizes(batch, sequence);
            let actual = run(session.as_mut(), &feeds, &shapes);
            for (name, actual) in names.iter().zip(&actual) {
                let actual = ints(actual);
                let float = facts.dtype(name).is_none_or(|dtype| dtype.is_float());
                let label = || format!("{} `{name}` at {batch} x {sequence}", path.display());
                if let Some(rank) = facts.rank(name) {
                    assert_eq!(rank, actual.len(), "{}", label());
                    // What depends on no data is right dimension by dimension.
                    for (dim, actual) in facts.shape(name).unwrap().iter().zip(&actual) {
                        let dim = dim.eval(&at);
                        assert!(dim.is_none_or(|dim| dim == *actual), "{}: {dim:?} for {actual}", label());
                    }
                }
                let known = facts.shape_at(name, &at).is_some();
                if !known {
                    eprintln!("unknown: {}: {:?}", label(), facts.get(name));
                }
                all += 1;
                all_known += usize::from(known);
                floats += usize::from(float);
                float_known += usize::from(float && known);
            }
            let actual = run(session.as_mut(), &feeds, &casts);
            for (name, actual) in valued.iter().zip(&actual) {
                for (element, actual) in facts.value(name).unwrap().iter().zip(ints(actual)) {
                    let element = element.eval(&at);
                    assert!(element.is_none_or(|e| e == actual), "{} `{name}`: {element:?}", path.display());
                    values += usize::from(element.is_some());
                }
            }
        }
    }
    eprintln!("shapes known: {float_known} of {floats} float values, {all_known} of {all} in all; {values} elements");
    assert_eq!(float_known, floats, "float values of known shape");
    assert_eq!(all_known, all, "values of known shape");
    assert!(values > 1000);
}
