//! What a session takes and refuses.

use super::{product, same};
use crate::common::{Attr, Graph, UnderTest, engines, f32s, i64s, numbers};
use fedtt_runtime::proto::tensor_proto::DataType::Float;
use fedtt_runtime::{Engine, Model, Tensor, TractEngine};

#[test]
fn one_session_takes_many_shapes_and_any_of_its_outputs() {
    let w = numbers(8 * 5, 2);
    let graph = Graph::new(17)
        .input("x", Float, &["b", "s", "8"])
        .input("scale", Float, &[])
        .f32("w", &[8, 5], &w)
        .node("MatMul", &["x", "w"], &["y"], &[])
        .node("Mul", &["y", "scale"], &["z"], &[])
        .output("y")
        .output("z");
    for under_test in engines() {
        let mut session = under_test.engine.load(&graph.model(), &Default::default()).unwrap();
        let scale = f32s(&[], &[2.0]);
        for round in 0..2 {
            for (b, s) in [(1, 1), (2, 3), (3, 2), (4, 5), (1, 7), (2, 2)] {
                let x = numbers(b * s * 8, (b * 10 + s + round) as u32);
                let y = product(&x, &w, b * s, 8, 5);
                let z: Vec<f32> = y.iter().map(|y| 2.0 * y).collect();
                let x = f32s(&[b, s, 8], &x);
                let found = session.run(&[("scale", &scale), ("x", &x)], &["z", "y"]).unwrap();
                same(&found[0], &f32s(&[b, s, 5], &z), under_test.tolerance).unwrap();
                same(&found[1], &f32s(&[b, s, 5], &y), under_test.tolerance).unwrap();
                let found = session.run(&[("x", &x), ("scale", &scale)], &["y"]).unwrap();
                same(&found[0], &f32s(&[b, s, 5], &y), under_test.tolerance).unwrap();
            }
        }
    }
}

#[test]
fn parts_give_what_each_gives_alone_in_their_order() {
    let graph = Graph::new(17)
        .input("x", Float, &["n", "8"])
        .input("scale", Float, &[])
        .f32("w", &[8, 5], &numbers(8 * 5, 2))
        .node("MatMul", &["x", "w"], &["y"], &[])
        .node("Mul", &["y", "scale"], &["z"], &[])
        .output("z");
    let scale = f32s(&[], &[2.0]);
    // The last one smaller, as of a batch that does not divide.
    let given = [4usize, 4, 4, 4, 1].into_iter().enumerate();
    let given: Vec<Tensor> = given.map(|(i, n)| f32s(&[n, 8], &numbers(n * 8, i as u32))).collect();
    let parts: Vec<Vec<(&str, &Tensor)>> = given.iter().map(|x| vec![("x", x)]).collect();
    let abreast = UnderTest { engine: Box::new(TractEngine::new(3)), tolerance: 2e-6 };
    for under_test in engines().into_iter().chain([abreast]) {
        let mut session = under_test.engine.load(&graph.model(), &Default::default()).unwrap();
        for _ in 0..2 {
            let found = session.run_parts(&[("scale", &scale)], &parts, &["z"]).unwrap();
            assert_eq!(found.len(), parts.len());
            for (x, found) in given.iter().zip(found) {
                let alone = session.run(&[("scale", &scale), ("x", x)], &["z"]).unwrap();
                same(&found[0], &alone[0], under_test.tolerance).unwrap();
            }
        }
        let wide = f32s(&[4, 9], &[0.0; 36]);
        let error = session.run_parts(&[("scale", &scale)], &[parts[0].clone(), vec![("x", &wide)]], &["z"]);
        assert!(error.unwrap_err().to_string().contains('9'), "{}", under_test.engine.name());
        assert!(session.run_parts(&[("scale", &scale)], &[], &["z"]).unwrap().is_empty());
    }
}

#[test]
fn inputs_and_outputs_that_do_not_fit_are_errors() {
    let graph = Graph::new(17)
        .input("x", Float, &["n", "4"])
        .input("c", Float, &["n", "4"])
        .node("Add", &["x", "c"], &["y"], &[])
        .output("y");
    let (good, wide, ids) = (f32s(&[1, 4], &[0.0; 4]), f32s(&[1, 5], &[0.0; 5]), i64s(&[1, 4], &[0; 4]));
    for under_test in engines() {
        let mut session = under_test.engine.load(&graph.model(), &Default::default()).unwrap();
        let mut message =
            |inputs: &[(&str, &Tensor)], outputs: &[&str]| session.run(inputs, outputs).unwrap_err().to_string();
        assert!(message(&[("x", &good)], &["y"]).contains('c'));
        assert!(message(&[("x", &good), ("c", &good), ("d", &good)], &["y"]).contains("no input `d`; it has x, c"));
        assert!(message(&[("x", &good), ("c", &good)], &["q"]).contains("no output `q`; it has y"));
        assert!(message(&[("x", &good), ("c", &wide)], &["y"]).contains('5'));
        message(&[("x", &good), ("c", &ids)], &["y"]);
        session.run(&[("x", &good), ("c", &good)], &["y"]).unwrap();
    }
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let half_a_model = {
        let mut bytes = Graph::new(17).input("x", Float, &["4"]).node("Exp", &["x"], &["y"], &[]).output("y").bytes();
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let unknown =
        Graph::new(17).input("x", Float, &["4"]).node("NoSuchOperator", &["x"], &["y"], &[]).output("y").bytes();
    let x = f32s(&[4], &[0.0; 4]);
    for under_test in engines() {
        for bytes in [vec![], b"not a model at all".to_vec(), half_a_model.clone(), unknown.clone()] {
            let model = Model { bytes, weights_dir: None };
            let run = under_test
                .engine
                .load(&model, &Default::default())
                .and_then(|mut session| session.run(&[("x", &x)], &["y"]).map(|_| ()));
            assert!(run.is_err(), "{}", under_test.engine.name());
        }
    }
}

#[test]
fn weights_beside_the_model_are_read_from_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let w = numbers(8 * 5, 2);
    let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(dir.path().join("weights.bin"), [vec![0; 4096], bytes.clone()].concat()).unwrap();
    let mut graph = Graph::new(17).input("x", Float, &["n", "8"]).f32("w", &[8, 5], &[]);
    let entry =
        |key: &str, value: &str| fedtt_runtime::proto::StringStringEntryProto { key: key.into(), value: value.into() };
    let constant = graph.last_constant();
    constant.data_location = Some(1);
    constant.external_data =
        vec![entry("location", "weights.bin"), entry("offset", "4096"), entry("length", &bytes.len().to_string())];
    let graph = graph.node("MatMul", &["x", "w"], &["y"], &[]).output("y");
    let x = numbers(3 * 8, 1);
    let expected = f32s(&[3, 5], &product(&x, &w, 3, 8, 5));
    for under_test in engines() {
        let model = Model { bytes: graph.bytes(), weights_dir: Some(dir.path().to_path_buf()) };
        let mut session = under_test.engine.load(&model, &Default::default()).unwrap();
        let found = session.run(&[("x", &f32s(&[3, 8], &x))], &["y"]).unwrap();
        same(&found[0], &expected, under_test.tolerance).unwrap();
        let elsewhere = Model { bytes: graph.bytes(), weights_dir: Some(dir.path().join("missing")) };
        assert!(under_test.engine.load(&elsewhere, &Default::default()).is_err(), "{}", under_test.engine.name());
    }
}

#[test]
fn quantised_weights_that_do_not_add_up_are_refused() {
    use fedtt_runtime::proto::tensor_proto::DataType::{Int4, Uint8};
    let int4 = |dims: &[i64], scales: &[i64], block: i64| {
        Graph::new(21)
            .input("x", Float, &["n", "32"])
            .raw("q", Int4, dims, vec![0; 64])
            .f32("s", scales, &vec![1.0; scales.iter().product::<i64>() as usize])
            .node("DequantizeLinear", &["q", "s"], &["w"], &[("axis", Attr::Int(0)), ("block_size", Attr::Int(block))])
            .node("MatMul", &["x", "w"], &["y"], &[])
            .output("y")
    };
    let n_bits = |k: i64, n: i64, bits: i64| {
        let attributes =
            [("K", Attr::Int(k)), ("N", Attr::Int(n)), ("bits", Attr::Int(bits)), ("block_size", Attr::Int(32))];
        Graph::new(17)
            .input("x", Float, &["n", "32"])
            .raw("q", Uint8, &[4, 1, 16], vec![0; 64])
            .f32("s", &[4], &[1.0; 4])
            .node("com.microsoft::MatMulNBits", &["x", "q", "s"], &["y"], &attributes)
            .output("y")
    };
    let graphs = [
        ("scales of another shape", int4(&[32, 4], &[3, 4], 16)),
        ("a negative block size", int4(&[32, 4], &[2, 4], -16)),
        ("a tensor larger than its data", int4(&[i64::MAX / 8, 4], &[2, 4], 16)),
        ("dimensions whose product overflows", int4(&[i64::MAX, i64::MAX], &[2, 4], 16)),
        ("a negative dimension", int4(&[-32, 4], &[2, 4], 16)),
        ("sizes that the data does not have", n_bits(i64::MAX, i64::MAX, 4)),
        ("a size of nothing", n_bits(0, 4, 4)),
        ("three bits", n_bits(32, 4, 3)),
    ];
    for (what, graph) in graphs {
        let error = TractEngine::new(1).load(&graph.model(), &Default::default()).err();
        assert!(error.is_some_and(|e| !e.to_string().contains("panicked")), "{what}");
    }
}
