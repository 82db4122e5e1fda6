//! Mutated models: whatever the bytes, reading them ends soon, in a graph or an error.
//!
//! `FEDTT_FUZZ_ITERATIONS` sets how many are tried (2,000 unless told), `FEDTT_FUZZ_START` the first seed. The longest run so
//! far had 200,000 mutants (first seed 10,000): 31,941 were accepted, the slowest took 0.05 s, memory peaked at 12 MiB.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "import/build.rs"]
#[allow(dead_code, unreachable_pub)]
mod build;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fedtt_backbone::backbone::Backbone;
use fedtt_backbone::export::to_model;
use fedtt_backbone::import;
use fedtt_backbone::ir::DType;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use build::*;

/// No single model may take longer, even unoptimised.
const SLOWEST: Duration = Duration::from_secs(20);
/// Nor may all of them together have held more memory than this.
const MOST_MEMORY: u64 = 2 << 30;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Small models that between them use every part of the reader.
fn handmade() -> Vec<Vec<u8>> {
    let branch = |op: &str| {
        let nodes = vec![node(op, &["h"], &["r"], vec![])];
        graph(nodes, vec![], vec![], vec![value("r", DType::F32, &[-1, 4])])
    };
    let external = TensorProto {
        name: "e".into(),
        data_type: 1,
        dims: vec![4],
        data_location: Some(1),
        external_data: [("location", "w.data"), ("offset", "16"), ("length", "16")]
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value: value.into() })
            .into(),
        ..TensorProto::default()
    };
    let nibbles = TensorProto {
        name: "q".into(),
        data_type: 22,
        dims: vec![4, 4],
        raw_data: vec![0x12; 8],
        ..TensorProto::default()
    };
    let nodes = vec![
        node("Gather", &["w", "ids"], &["g"], vec![]),
        node("Transpose", &["w"], &["t"], vec![ints("perm", &[1, 0])]),
        node("Add", &["g", "e"], &["a"], vec![]),
        node("ReduceMean", &["a"], &["m"], vec![ints("axes", &[-1]), int("keepdims", 1)]),
        node("Sub", &["a", "m"], &["s"], vec![]),
        node("Softmax", &["s"], &["p"], vec![int("axis", 1)]),
        node("Shape", &["p"], &["shape"], vec![]),
        node("Unsqueeze", &["p"], &["u"], vec![ints("axes", &[0])]),
        node("Squeeze", &["u"], &["v"], vec![ints("axes", &[0])]),
        node("Reshape", &["v", "shape"], &["h"], vec![]),
        node("Constant", &[], &["yes"], vec![tensor_attr("value", ints_tensor("", &[], &[1]))]),
        node("Cast", &["yes"], &["c"], vec![int("to", 9)]),
        node(
            "If",
            &["c"],
            &["i"],
            vec![graph_attr("then_branch", branch("Neg")), graph_attr("else_branch", branch("Identity"))],
        ),
        call("affine", &["i"], &["f"], vec![float("by", 2.0)]),
        node("DequantizeLinear", &["q", "scale"], &["d"], vec![int("axis", 1)]),
        node("MatMul", &["f", "d"], &["x"], vec![]),
        node("Split", &["x"], &["x1", "x2"], vec![int("axis", 1)]),
        node("Concat", &["x2", "x1"], &["z"], vec![int("axis", 1)]),
        node("MatMul", &["z", "t"], &["y"], vec![]),
    ];
    let constants =
        vec![floats_tensor("w", &[5, 4], &[0.25; 20]), floats_tensor("scale", &[4], &[0.5; 4]), external, nibbles];
    let inputs = vec![value("ids", DType::I64, &[3])];
    let graph = graph(nodes, constants, inputs, vec![value("y", DType::F32, &[-1, 5])]);
    let body = vec![
        node("Constant", &[], &["k"], vec![reference("value_float", "by", 1)]),
        node("Mul", &["x", "k"], &["y"], vec![]),
    ];
    let functions = vec![function("affine", &["x"], &["y"], &["by"], body)];
    let mut models: Vec<Vec<u8>> = [11, 12, 17]
        .map(|opset| {
            let mut model = ModelProto { functions: functions.clone(), ..model(opset, graph.clone()) };
            model.functions[0].opset_import[0].version = opset;
            model.encode_to_vec()
        })
        .into();
    models.push(functions_of_functions().encode_to_vec());
    models.push(tables_in_blocks().encode_to_vec());
    models
}

/// Functions that call one another, with constants of their own, and hand graphs, tensors and numbers on.
fn functions_of_functions() -> ModelProto {
    let branch = |nodes: Vec<NodeProto>, output: &str| {
        graph(
            nodes,
            vec![floats_tensor(&format!("{output}.w"), &[2], &[0.5; 2])],
            vec![],
            vec![value(output, DType::F32, &[2])],
        )
    };
    let either = |output: &str| {
        let branches = ["then_branch", "else_branch"].map(|name| reference(name, "g", 5)).into();
        node("If", &["c"], &[output], branches)
    };
    let choose = vec![
        either("a"),
        node("Constant", &[], &["k"], vec![reference("value", "by", 4)]),
        node("Mul", &["a", "k"], &["y"], vec![]),
    ];
    let on = || vec![reference("g", "g", 5), reference("by", "by", 4)];
    let twice = vec![
        node("Constant", &[], &["k"], vec![tensor_attr("value", floats_tensor("", &[2], &[1.0, 2.0]))]),
        call("choose", &["c"], &["a"], on()),
        call(
            "choose",
            &["c"],
            &["b"],
            vec![graph_attr("g", branch(vec![either("i"), either("j")], "i")), reference("by", "by", 4)],
        ),
        node("Sum", &["a", "b", "k"], &["y"], vec![]),
    ];
    let four = vec![
        call("twice", &["c"], &["a"], on()),
        call("twice", &["c"], &["b"], on()),
        node("Sub", &["a", "b"], &["y"], vec![]),
    ];
    let functions = [("choose", choose), ("twice", twice), ("four", four)];
    let functions = functions.map(|(name, body)| function(name, &["c"], &["y"], &["g", "by"], body));
    let nodes = vec![call(
        "four",
        &["flag"],
        &["y"],
        vec![
            graph_attr("g", branch(vec![node("Neg", &["x"], &["n"], vec![])], "n")),
            tensor_attr("by", floats_tensor("", &[2], &[3.0, 4.0])),
        ],
    )];
    let inputs = vec![value("x", DType::F32, &[2]), value("flag", DType::Bool, &[])];
    let graph = graph(nodes, vec![], inputs, vec![value("y", DType::F32, &[2])]);
    ModelProto { functions: functions.into(), ..model(17, graph) }
}

/// Rows of 4-bit tables, picked by ONNX Runtime's operator and by ONNX's own.
fn tables_in_blocks() -> ModelProto {
    let packed = |name: &str, data_type: i32, dims: [i64; 2], bytes: usize| TensorProto {
        name: name.into(),
        data_type,
        dims: dims.into(),
        raw_data: vec![0x4d; bytes],
        ..TensorProto::default()
    };
    let block = |axis: &str| vec![int("block_size", 16), int(axis, 1)];
    let gather = node("GatherBlockQuantized", &["t", "ids", "s", "z"], &["a"], block("quantize_axis"));
    let nodes = vec![
        NodeProto { domain: "com.microsoft".into(), ..gather },
        node("DequantizeLinear", &["q", "s"], &["f"], block("axis")),
        node("Gather", &["f", "ids"], &["b"], vec![int("axis", 0)]),
        node("Add", &["a", "b"], &["y"], vec![]),
    ];
    let constants = vec![
        packed("t", 2, [4, 24], 96),
        packed("z", 2, [4, 2], 8),
        packed("q", 22, [4, 48], 96),
        floats_tensor("s", &[4, 3], &[0.5; 12]),
    ];
    let inputs = vec![value("ids", DType::I64, &[-1, -1])];
    model(21, graph(nodes, constants, inputs, vec![value("y", DType::F32, &[-1, -1, 48])]))
}

fn fixtures() -> Vec<Vec<u8>> {
    let shared = PathBuf::from(option_env!("FEDTT_SHARED_FOUND").unwrap_or_default());
    let names = [
        "bert/optimum-opset18",
        "bert/dynamo-unoptimized-opset20",
        "llama/int4-weightonly-qdq-opset21",
        "gpt2/dynamo-opset20",
    ];
    let path = |name: &str| shared.join("fixtures").join(format!("{name}.onnx"));
    let found: Vec<Vec<u8>> = names.iter().filter_map(|name| std::fs::read(path(name)).ok()).collect();
    if found.is_empty() {
        eprintln!("no fixtures in {}: only handmade models are mutated", shared.display());
    }
    found
}

/// Edits that know nothing of the format.
fn mutate_bytes(bytes: &mut Vec<u8>, other: &[u8], rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..8) {
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = rng.random(),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + rng.random_range(1..32)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let from = rng.random_range(0..other.len());
                let end = (from + rng.random_range(1..64)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            6 => {
                // A number of up to ten bytes, where a length or a size may be.
                let value: u64 = rng.random::<u64>() >> rng.random_range(0..64);
                let mut varint = Vec::new();
                let mut left = value;
                while left >= 0x80 {
                    varint.push(left as u8 | 0x80);
                    left >>= 7;
                }
                varint.push(left as u8);
                bytes.splice(at..at + 1, varint);
            }
            _ => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

fn odd_number(rng: &mut ChaCha8Rng) -> i64 {
    const ODD: [i64; 14] =
        [0, 1, -1, 2, -2, 3, 7, 64, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN, 1 << 40, -(1 << 40)];
    *ODD.choose(rng).unwrap()
}

/// Edits that leave a well-formed file.
fn mutate_model(model: &mut ModelProto, rng: &mut ChaCha8Rng) {
    const OPS: [&str; 24] = [
        "Add",
        "MatMul",
        "Gemm",
        "Reshape",
        "Transpose",
        "Slice",
        "Concat",
        "Gather",
        "Expand",
        "Where",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Shape",
        "Range",
        "ConstantOfShape",
        "Cast",
        "ReduceMean",
        "Softmax",
        "Flatten",
        "Pad",
        "Tile",
        "GatherND",
        "Einsum",
    ];
    const FUNCTIONS: [&str; 4] = ["affine", "choose", "twice", "four"];
    let version = model.opset_import.first_mut();
    if let (Some(import), 0) = (version, rng.random_range(0..10)) {
        import.version = rng.random_range(9..25);
    }
    let Some(graph) = model.graph.as_mut() else { return };
    // Half of the models with functions are changed in one of these, or in what is called.
    let function = if rng.random() { pick(&mut model.functions, rng) } else { None };
    let nodes = function.map_or(&mut graph.node, |function| &mut function.node);
    let names: Vec<String> = nodes.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    for _ in 0..rng.random_range(1..5) {
        match rng.random_range(0..10) {
            0 => {
                let tensor = pick(&mut graph.initializer, rng);
                let Some(tensor) = tensor else { continue };
                match pick(&mut tensor.dims, rng) {
                    Some(dim) if rng.random() => *dim = odd_number(rng),
                    _ => tensor.dims.push(odd_number(rng)),
                }
            }
            1 => {
                let Some(tensor) = pick(&mut graph.initializer, rng) else { continue };
                tensor.data_type = rng.random_range(0..24);
            }
            2 => {
                // Constants that are shapes, axes and indices.
                let Some(tensor) = pick(&mut graph.initializer, rng) else { continue };
                if tensor.data_type == 7 {
                    let values = tensor.dims.iter().product::<i64>().clamp(0, 16);
                    tensor.raw_data = (0..values).flat_map(|_| odd_number(rng).to_le_bytes()).collect();
                    tensor.int64_data.clear();
                }
            }
            3 | 4 => {
                let Some(node) = pick(nodes, rng) else { continue };
                let Some(attribute) = pick(&mut node.attribute, rng) else { continue };
                attribute.i = odd_number(rng);
                if let Some(i) = pick(&mut attribute.ints, rng) {
                    *i = odd_number(rng);
                }
                if let Some(tensor) = attribute.t.as_mut().filter(|t| t.data_type == 7) {
                    let values = tensor.dims.iter().product::<i64>().clamp(0, 16);
                    tensor.raw_data = (0..values).flat_map(|_| odd_number(rng).to_le_bytes()).collect();
                    tensor.int64_data.clear();
                }
                if rng.random_range(0..8) == 0 {
                    attribute.r#type = rng.random_range(0..15);
                }
                // Graphs within graphs, and attributes handed on to others.
                if let Some(inner) = attribute.g.as_mut().filter(|_| rng.random()) {
                    let copy = inner.node.choose(rng).cloned();
                    inner.node.extend(copy);
                } else if !attribute.ref_attr_name.is_empty() && rng.random() {
                    attribute.name = ["g", "by", "then_branch", "value"].choose(rng).unwrap().to_string();
                }
            }
            5 | 6 => {
                let Some(node) = pick(nodes, rng) else { continue };
                let name = names.choose(rng).cloned().unwrap_or_default();
                match pick(&mut node.input, rng) {
                    Some(input) if rng.random() => *input = name,
                    _ if rng.random() => node.input.push(name),
                    _ => drop(node.input.pop()),
                }
            }
            7 => {
                let Some(node) = pick(nodes, rng) else { continue };
                let known = if node.domain.is_empty() { &OPS[..] } else { &FUNCTIONS[..] };
                node.op_type = known.choose(rng).unwrap().to_string();
            }
            8 => {
                let Some(node) = pick(nodes, rng) else { continue };
                node.attribute.pop();
            }
            _ => {
                let Some(node) = pick(nodes, rng) else { continue };
                match rng.random_range(0..3) {
                    0 => drop(node.output.pop()),
                    1 => node.output.push(names.choose(rng).cloned().unwrap_or_default()),
                    _ => {
                        let copy = node.clone();
                        nodes.push(copy);
                    }
                }
            }
        }
    }
}

fn pick<'a, T>(items: &'a mut [T], rng: &mut ChaCha8Rng) -> Option<&'a mut T> {
    if items.is_empty() {
        return None;
    }
    let at = rng.random_range(0..items.len());
    items.get_mut(at)
}

fn mutant(seeds: &[Vec<u8>], fixtures: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let large = !fixtures.is_empty() && rng.random_range(0..16) == 0;
    let mut bytes = if large { fixtures } else { seeds }.choose(rng).unwrap().clone();
    if rng.random() {
        let mut model = ModelProto::decode(&bytes[..]).unwrap();
        mutate_model(&mut model, rng);
        bytes = model.encode_to_vec();
        if rng.random_range(0..4) > 0 {
            return bytes;
        }
    }
    let other = seeds.choose(rng).unwrap();
    mutate_bytes(&mut bytes, other, rng);
    bytes
}

/// Ends the process, naming the seed, when one model takes too long.
fn watch(current: &'static AtomicU64) {
    std::thread::spawn(move || {
        let mut last = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let seed = current.load(Ordering::Relaxed);
            if seed != last.0 {
                last = (seed, Instant::now());
            } else if last.1.elapsed() > SLOWEST {
                eprintln!("seed {seed} hangs");
                std::process::exit(1);
            }
        }
    });
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[test]
fn mutated_models_are_read_or_refused() {
    static CURRENT: AtomicU64 = AtomicU64::new(0);
    let (start, iterations) = (number("FEDTT_FUZZ_START", 0), number("FEDTT_FUZZ_ITERATIONS", 2000));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.data"), [0; 64]).unwrap();
    let path = folder.path().join("m.onnx");
    let (seeds, fixtures) = (handmade(), fixtures());
    for seed in &seeds {
        let graph = import::from_bytes(seed, &path).unwrap();
        import::from_bytes(&to_model(&graph, None).unwrap().bytes, &path).unwrap();
    }
    watch(&CURRENT);
    let (mut accepted, mut backbones, mut slowest) = (0, 0, (Duration::ZERO, 0));
    for seed in start..start + iterations {
        CURRENT.store(seed, Ordering::Relaxed);
        let bytes = mutant(&seeds, &fixtures, &mut ChaCha8Rng::seed_from_u64(seed));
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let graph = import::from_bytes(&bytes, &path).ok()?;
            let written = to_model(&graph, None).unwrap();
            if let Err(error) = import::from_bytes(&written.bytes, &path) {
                panic!("cannot be read back: {error}");
            }
            Some(Backbone::new(graph, None).is_ok())
        }));
        match outcome {
            Ok(read) => {
                accepted += u64::from(read.is_some());
                backbones += u64::from(read == Some(true));
            }
            Err(_) => panic!("seed {seed} (FEDTT_FUZZ_START={seed} FEDTT_FUZZ_ITERATIONS=1)"),
        }
        slowest = slowest.max((begun.elapsed(), seed));
    }
    let memory = peak_memory();
    eprintln!(
        "{iterations} mutants: {accepted} accepted, {backbones} of them backbones; slowest {:?} (seed {}); peak memory {} MiB",
        slowest.0,
        slowest.1,
        memory.unwrap_or(0) >> 20
    );
    assert!(memory.is_none_or(|bytes| bytes < MOST_MEMORY));
}
