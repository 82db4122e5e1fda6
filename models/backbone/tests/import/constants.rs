//! Constants: every way to store one, and sizes that do not fit.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use fedtt_backbone::import;
use fedtt_backbone::ir::{DType, Data, Weight};
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::{ModelProto, StringStringEntryProto, TensorProto};

use crate::build::*;

/// A model that returns the constant `w`.
fn returning(tensor: TensorProto) -> ModelProto {
    let dtype = DType::F32;
    model(17, graph(vec![], vec![tensor], vec![], vec![value("w", dtype, &[])]))
}

fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { name: "w".into(), data_type, dims: dims.to_vec(), ..TensorProto::default() }
}

fn read(tensor: TensorProto) -> Weight {
    import(&returning(tensor)).unwrap().weights["w"].clone()
}

fn refused(tensor: TensorProto) -> String {
    let message = refusal(&returning(tensor));
    assert!(message.contains("`w`"), "{message}");
    message
}

#[test]
fn typed_fields_are_read_as_raw_data_is() {
    let int32 = |data_type, values: &[i32]| {
        let dims = [values.len() as i64];
        read(TensorProto { int32_data: values.to_vec(), ..tensor(data_type, &dims) })
    };
    assert_eq!(int32(6, &[-1, 7]).to_i64s().unwrap(), [-1, 7]);
    assert_eq!(int32(3, &[-1, 7]).to_i64s().unwrap(), [-1, 7]);
    assert_eq!(int32(2, &[255, 7]).to_i64s().unwrap(), [255, 7]);
    assert_eq!(int32(4, &[65535, 7]).to_i64s().unwrap(), [65535, 7]);
    assert_eq!(int32(5, &[-2, 7]).to_i64s().unwrap(), [-2, 7]);
    assert_eq!(int32(9, &[1, 0]).to_i64s().unwrap(), [1, 0]);
    assert_eq!(int32(10, &[0x3c00, 0xc000]).to_f32s().unwrap(), [1.0, -2.0]);
    assert_eq!(int32(16, &[0x3f80, 0xc000]).to_f32s().unwrap(), [1.0, -2.0]);
    let f64s = TensorProto { double_data: vec![0.5, -3.0], ..tensor(11, &[2]) };
    assert_eq!(read(f64s).to_f32s().unwrap(), [0.5, -3.0]);
    let u32s = TensorProto { uint64_data: vec![u64::from(u32::MAX)], ..tensor(12, &[1]) };
    assert_eq!(read(u32s).to_i64s().unwrap(), [i64::from(u32::MAX)]);
    let raw = TensorProto { raw_data: vec![0, 0, 128, 63], ..tensor(1, &[]) };
    assert_eq!(read(raw).to_f32s().unwrap(), [1.0]);
}

#[test]
fn four_bit_integers_are_packed() {
    for data_type in [21, 22] {
        let typed = TensorProto { int32_data: vec![0x21, 0x03], ..tensor(data_type, &[3]) };
        let raw = TensorProto { raw_data: vec![0x21, 0x03], ..tensor(data_type, &[3]) };
        assert_eq!(read(typed).bytes().unwrap()[..], [0x21, 0x03]);
        assert_eq!(read(raw).bytes().unwrap()[..], [0x21, 0x03]);
        refused(TensorProto { raw_data: vec![0x21, 0x03, 0x05], ..tensor(data_type, &[3]) });
    }
}

#[test]
fn sizes_must_fit() {
    refused(floats_tensor("w", &[3], &[1.0]));
    refused(floats_tensor("w", &[], &[]));
    refused(TensorProto { raw_data: vec![0; 5], ..tensor(1, &[1]) });
    assert!(refused(floats_tensor("w", &[-1], &[1.0])).contains("-1"));
    for dims in [&[i64::MAX, i64::MAX][..], &[i64::MAX, 0, i64::MAX], &[1 << 32, 1 << 32], &[1 << 45]] {
        assert!(refused(tensor(1, dims)).contains("absurdly"));
    }
    assert_eq!(read(tensor(1, &[0, 5])).shape, [0, 5]);
}

#[test]
fn unsupported_types_are_named() {
    assert!(refused(TensorProto { string_data: vec![b"a".to_vec()], ..tensor(8, &[1]) }).contains("strings"));
    assert!(refused(tensor(14, &[0])).contains("complex"));
    assert!(refused(tensor(17, &[0])).contains("8-bit floats"));
    assert!(refused(tensor(0, &[0])).contains("no element type"));
    assert!(refused(tensor(99, &[0])).contains("99"));
}

#[test]
fn constant_nodes_become_weights() {
    let attrs = vec![
        tensor_attr("value", floats_tensor("", &[1], &[2.0])),
        float("value_float", 2.0),
        floats("value_floats", &[2.0]),
        int("value_int", 2),
        ints("value_ints", &[2]),
    ];
    for attr in attrs {
        let nodes = vec![node("Constant", &[], &["c"], vec![attr.clone()]), node("Neg", &["c"], &["y"], vec![])];
        let graph = import(&model(17, graph(nodes, vec![], vec![], vec![value("y", DType::F32, &[])]))).unwrap();
        assert_eq!(ops(&graph), ["Neg"]);
        let weight = &graph.weights["c"];
        assert_eq!(weight.shape.len(), usize::from(!attr.name.ends_with("float") && !attr.name.ends_with("int")));
        let number = weight.to_f32s().map(|v| v[0]).or_else(|| weight.to_i64s().map(|v| v[0] as f32));
        assert_eq!(number, Some(2.0));
    }
}

fn external(entries: &[(&str, &str)], dims: &[i64]) -> TensorProto {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: key.to_string(), value: value.to_string() };
    TensorProto { data_location: Some(1), external_data: entries.iter().map(entry).collect(), ..tensor(1, dims) }
}

fn import_at(folder: &Path, tensor: TensorProto) -> Result<Weight, String> {
    let bytes = returning(tensor).encode_to_vec();
    let graph = import::from_bytes(&bytes, &folder.join("m.onnx")).map_err(|e| e.to_string())?;
    Ok(graph.weights["w"].clone())
}

#[test]
fn external_data_stays_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..600).map(|v| v as f32).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.path().join("w.data"), &bytes).unwrap();
    let large = external(&[("location", "w.data"), ("offset", "400"), ("length", "2000")], &[500]);
    let large = import_at(folder.path(), large).unwrap();
    assert!(matches!(large.data, Data::File { offset: 400, .. }));
    assert_eq!(large.to_f32s().unwrap(), values[100..]);
    let small = import_at(folder.path(), external(&[("location", "./w.data")], &[2])).unwrap();
    assert!(matches!(small.data, Data::Bytes(_)));
    assert_eq!(small.to_f32s().unwrap(), [0.0, 1.0]);
}

#[test]
fn external_data_may_lie_beyond_two_gibibytes() {
    let folder = tempfile::tempdir().unwrap();
    // A file with a hole: it takes no space.
    let mut file = std::fs::File::create(folder.path().join("w.data")).unwrap();
    file.seek(SeekFrom::Start(5 << 30)).unwrap();
    file.write_all(&[0x5a; 4096]).unwrap();
    let large = external(&[("location", "w.data"), ("offset", "5368709120"), ("length", "4096")], &[1024]);
    let large = import_at(folder.path(), large).unwrap();
    assert_eq!(large.bytes().unwrap()[..], [0x5a; 4096]);
    let huge = import_at(folder.path(), external(&[("location", "w.data")], &[5 << 28])).unwrap();
    assert_eq!(huge.byte_len(), 5 << 30);
}

#[test]
fn external_data_must_be_there_inside_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret"), [0; 64]).unwrap();
    std::fs::write(inner.join("w.data"), [0; 64]).unwrap();
    let refused = |entries: &[(&str, &str)], dims: &[i64]| import_at(&inner, external(entries, dims)).unwrap_err();
    let secret = folder.path().join("secret");
    for location in ["../secret", secret.to_str().unwrap(), "a/../../secret", "..\\secret"] {
        assert!(refused(&[("location", location)], &[1]).contains("outside"), "{location}");
    }
    assert!(refused(&[("location", "gone.data")], &[1]).contains("gone.data"));
    assert!(refused(&[("location", ".")], &[1]).contains("not a file"));
    assert!(refused(&[], &[1]).contains("location"));
    assert!(refused(&[("location", "w.data")], &[17]).contains("cut short"));
    assert!(refused(&[("location", "w.data"), ("offset", "61")], &[1]).contains("cut short"));
    assert!(refused(&[("location", "w.data"), ("offset", "18446744073709551615")], &[1]).contains("cut short"));
    assert!(refused(&[("location", "w.data"), ("offset", "-1")], &[1]).contains("offset"));
    assert!(refused(&[("location", "w.data"), ("length", "8")], &[1]).contains("8 bytes"));
    assert!(refused(&[("location", "w.data")], &[1 << 40]).contains("cut short"));
}
