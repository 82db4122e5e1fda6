//! Embedding tables in few bits.

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{DType, Graph, Weight};
use fedtt_runtime::ort_engine::{OrtEngine, OrtOptions};
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::{ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use fedtt_runtime::{Engine, Model, SessionOptions, TractEngine};

use crate::build::*;

const ROWS: usize = 5;
const BLOCK: usize = 16;
/// An odd number: rows of 4-bit zero points end within a byte.
const BLOCKS: usize = 3;
const IDS: [i64; 4] = [4, 0, -1, 2];

fn raw(name: &str, dtype: DType, dims: &[usize], raw_data: Vec<u8>) -> TensorProto {
    let dims = dims.iter().map(|&dim| dim as i64).collect();
    TensorProto { name: name.into(), data_type: dtype.onnx() as i32, dims, raw_data, ..TensorProto::default() }
}

/// Numbers of `bits` bits in bytes, each row of `columns` beginning with a new one.
fn packed(values: &[i64], bits: usize, columns: usize) -> Vec<u8> {
    if bits == 8 {
        return values.iter().map(|&value| value as u8).collect();
    }
    let byte = |pair: &[i64]| (pair[0] & 15 | (pair.get(1).copied().unwrap_or(0) & 15) << 4) as u8;
    values.chunks(columns).flat_map(|row| row.chunks(2).map(byte)).collect()
}

/// A table's numbers, a zero point and a scale for each block.
struct Table {
    dtype: DType,
    /// Bits of a number that is stored as part of a byte (`DType::U8`).
    bits: usize,
    values: Vec<i64>,
    zeros: Option<Vec<i64>>,
    scales: Vec<f32>,
    /// Whether scales and rows are float16, in which these are exact.
    half: bool,
}

impl Table {
    fn new(dtype: DType, bits: usize, zeros: bool) -> Self {
        let (least, count) = if dtype == DType::I4 { (-8, 16) } else { (0, 1 << bits) };
        let number = |i: usize, step: usize| least + (i * step % count) as i64;
        Table {
            dtype,
            bits,
            values: (0..ROWS * BLOCKS * BLOCK).map(|i| number(i, 7 + i / 50)).collect(),
            zeros: zeros.then(|| (0..ROWS * BLOCKS).map(|i| number(i, 5)).collect()),
            scales: (0..ROWS * BLOCKS).map(|i| 0.25 + 0.125 * i as f32).collect(),
            half: bits == 4 && zeros,
        }
    }

    /// What the rows `IDS` are.
    fn rows(&self) -> Vec<f32> {
        let middle = if self.dtype == DType::U8 { 1 << (self.bits - 1) } else { 0 };
        let float = |i: usize| {
            let zero = self.zeros.as_ref().map_or(middle, |zeros| zeros[i / BLOCK]);
            (self.values[i] - zero) as f32 * self.scales[i / BLOCK]
        };
        let columns = BLOCKS * BLOCK;
        let row = |id: i64| id.rem_euclid(ROWS as i64) as usize * columns;
        IDS.iter().flat_map(|&id| (row(id)..row(id) + columns).map(float)).collect()
    }

    /// `nodes` from the table `t`, its scales `s` and zero points `z` to `rows`; packed by row as bytes are, or all in one.
    fn model(&self, nodes: impl Fn(Vec<&'static str>) -> Vec<NodeProto>) -> ModelProto {
        let bytes = self.dtype == DType::U8;
        let pack =
            |values: &[i64], columns: usize| packed(values, self.bits, if bytes { columns } else { values.len() });
        let stored = |columns: usize| if bytes { (columns * self.bits).div_ceil(8) } else { columns };
        let table = raw("t", self.dtype, &[ROWS, stored(BLOCKS * BLOCK)], pack(&self.values, BLOCKS * BLOCK));
        let dtype = if self.half { DType::F16 } else { DType::F32 };
        let scales = Weight::floats(dtype, &[ROWS, BLOCKS], &self.scales).bytes().unwrap().to_vec();
        let mut constants = vec![table, raw("s", dtype, &[ROWS, BLOCKS], scales)];
        let mut names = vec!["t", "s"];
        if let Some(zeros) = &self.zeros {
            constants.push(raw("z", self.dtype, &[ROWS, stored(BLOCKS)], pack(zeros, BLOCKS)));
            names.push("z");
        }
        let inputs = vec![value("ids", DType::I64, &[-1, -1])];
        let mut nodes = nodes(names);
        nodes.push(node("Cast", &["rows"], &["y"], vec![int("to", 1)]));
        let graph = graph(nodes, constants, inputs, vec![value("y", DType::F32, &[-1, -1, -1])]);
        let mut model = ModelProto { ir_version: 10, ..model(21, graph) };
        model.opset_import.push(OperatorSetIdProto { domain: "com.microsoft".into(), version: 1 });
        model
    }

    /// ONNX Runtime's operator.
    fn gathered(&self) -> ModelProto {
        self.model(|names| {
            let mut inputs = names;
            inputs.insert(1, "ids");
            let mut attrs = vec![int("gather_axis", 0), int("quantize_axis", -1), int("block_size", BLOCK as i64)];
            attrs.extend((self.dtype == DType::U8).then(|| int("bits", self.bits as i64)));
            let gather = node("GatherBlockQuantized", &inputs, &["rows"], attrs);
            vec![NodeProto { domain: "com.microsoft".into(), ..gather }]
        })
    }

    /// The same with ONNX's own.
    fn dequantised(&self) -> ModelProto {
        self.model(|names| {
            let attrs = vec![int("axis", 1), int("block_size", BLOCK as i64)];
            vec![node("DequantizeLinear", &names, &["f"], attrs), node("Gather", &["f", "ids"], &["rows"], vec![])]
        })
    }
}

fn tables() -> Vec<Table> {
    let kinds = [(DType::I4, 4), (DType::U4, 4), (DType::U8, 4), (DType::U8, 8)];
    kinds.iter().flat_map(|&(dtype, bits)| [false, true].map(|zeros| Table::new(dtype, bits, zeros))).collect()
}

fn run(engine: &dyn Engine, model: &Model) -> Vec<f32> {
    let mut session = engine.load(model, &SessionOptions::default()).unwrap();
    let ids = ndarray::arr2(&[[IDS[0], IDS[1]], [IDS[2], IDS[3]]]).into_dyn().into();
    let rows = session.run(&[("ids", &ids)], &["y"]).unwrap().remove(0);
    assert_eq!(rows.shape(), [2, 2, BLOCKS * BLOCK]);
    rows.as_f32().unwrap().iter().copied().collect()
}

fn picks_before_unpacking(graph: &Graph) -> bool {
    let tables = graph.weights.values().filter(|weight| weight.shape.first() == Some(&ROWS));
    !ops(graph).contains(&"DequantizeLinear") && tables.count() >= 2
}

#[test]
fn rows_of_a_table_in_blocks_are_picked_before_they_are_unpacked() {
    let ort = OrtEngine::new(OrtOptions { threads: 1, ..OrtOptions::default() });
    for table in tables() {
        let case = format!(
            "{:?}, {} bits, zero points: {}, half: {}",
            table.dtype,
            table.bits,
            table.zeros.is_some(),
            table.half
        );
        let own = if table.dtype == DType::U8 { None } else { Some(table.dequantised()) };
        for (model, native) in own.map(|model| (model, false)).into_iter().chain([(table.gathered(), true)]) {
            let graph = import(&model).unwrap();
            assert!(picks_before_unpacking(&graph), "{case}: {graph:?}");
            let imported = to_model(&graph, None).unwrap();
            assert_eq!(run(&TractEngine::new(1), &imported), table.rows(), "{case}");
            let Ok(ort) = &ort else { continue };
            assert_eq!(run(ort, &imported), table.rows(), "{case}");
            // ONNX Runtime's own reading of its operator.
            if native {
                let original = Model { bytes: model.encode_to_vec(), weights_dir: None };
                assert_eq!(run(ort, &original), table.rows(), "{case}");
            }
        }
    }
    if let Err(error) = ort {
        eprintln!("not run on ONNX Runtime: {error}");
    }
}

#[test]
fn a_table_in_blocks_that_is_also_read_whole_stays() {
    let mut model = Table::new(DType::I4, 4, false).dequantised();
    let graph = model.graph.as_mut().unwrap();
    graph.node.push(node("MatMul", &["y", "transposed"], &["logits"], vec![]));
    graph.node.push(node("Transpose", &["f"], &["transposed"], vec![]));
    graph.output.push(value("logits", DType::F32, &[-1, -1, -1]));
    assert!(ops(&import(&model).unwrap()).contains(&"DequantizeLinear"));
}

#[test]
fn a_table_in_blocks_that_does_not_fit_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut ModelProto)| {
        let mut model = Table::new(DType::U8, 4, true).gathered();
        change(&mut model);
        let message = refusal(&model);
        assert!(message.contains("GatherBlockQuantized") && message.contains("op_types_to_quantize"), "{message}");
    };
    refused(&|model| model.graph.as_mut().unwrap().node[0].attribute[2].i = 32);
    refused(&|model| model.graph.as_mut().unwrap().node[0].attribute[2].i = 0);
    refused(&|model| model.graph.as_mut().unwrap().node[0].attribute[1].i = 7);
    refused(&|model| model.graph.as_mut().unwrap().node[0].attribute[3].i = 2);
    refused(&|model| model.graph.as_mut().unwrap().node[0].input[2] = "ids".into());
    refused(&|model| model.graph.as_mut().unwrap().node[0].input[3] = "t".into());
}

#[test]
fn rows_of_a_table_with_columns_of_one_scale_are_picked_before_they_are_unpacked() {
    let table = TensorProto {
        name: "t".into(),
        dims: vec![3, 2],
        data_type: 3,
        int32_data: vec![1, 2, 3, 4, 5, 6],
        ..TensorProto::default()
    };
    let packed = |scale: TensorProto, axis: i64| {
        let nodes = vec![
            node("DequantizeLinear", &["t", "s"], &["f"], vec![int("axis", axis)]),
            node("Gather", &["f", "x"], &["y"], vec![]),
        ];
        let inputs = vec![value("x", DType::I64, &[2])];
        model(17, graph(nodes, vec![table.clone(), scale], inputs, vec![value("y", DType::F32, &[2, 2])]))
    };
    let by_column = packed(floats_tensor("s", &[2], &[0.5, 2.0]), 1);
    let imported = import(&by_column).unwrap();
    assert_eq!(ops(&imported), ["Gather", "DequantizeLinear"]);
    let engine = TractEngine::new(1);
    let mut session = engine.load(&to_model(&imported, None).unwrap(), &SessionOptions::default()).unwrap();
    let rows = ndarray::arr1(&[2i64, 0]).into_dyn().into();
    let output = session.run(&[("x", &rows)], &["y"]).unwrap().remove(0);
    assert_eq!(output.as_f32().unwrap().iter().copied().collect::<Vec<_>>(), [2.5, 12.0, 0.5, 4.0]);

    let by_row = packed(floats_tensor("s", &[3], &[0.5, 1.0, 2.0]), 0);
    assert_eq!(ops(&import(&by_row).unwrap()), ["DequantizeLinear", "Gather"]);
}
