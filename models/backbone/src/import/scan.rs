//! A look over a model's bytes before they are decoded.
//!
//! An empty message takes two bytes in a file and up to a thousand in memory. Counting messages first keeps a hostile
//! file from taking all memory.

/// Messages a model may hold: nodes, attributes, tensors, dimensions of ports and so on.
const MAX_MESSAGES: usize = 1 << 20;

/// Messages that may lie inside one another; the decoder's own limit.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Value,
    Type,
    TensorType,
    Shape,
    Function,
    Training,
    Annotation,
    Leaf,
}

/// The message that field `field` of `kind` holds; none if it holds no message.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) | (Kind::Attribute, 6 | 11) | (Kind::Training, 1 | 2) => Kind::Graph,
        (Kind::Model, 20) => Kind::Training,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Graph, 11..=13) => Kind::Value,
        (Kind::Graph, 14) => Kind::Annotation,
        (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
        (Kind::Value, 2) | (Kind::Attribute, 15) => Kind::Type,
        (Kind::Type, 1) => Kind::TensorType,
        (Kind::TensorType, 2) => Kind::Shape,
        (Kind::Model, 8 | 14) | (Kind::Function, 9) | (Kind::Shape, 1) | (Kind::Tensor, 3 | 13) => Kind::Leaf,
        (Kind::Annotation, 2) | (Kind::Training, 3 | 4) => Kind::Leaf,
        _ => return None,
    })
}

/// Checks that the bytes of a `ModelProto` hold together and do not unfold into too much.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut messages = 0;
    message(bytes, Kind::Model, 0, &mut messages)
}

fn message(mut bytes: &[u8], kind: Kind, depth: usize, messages: &mut usize) -> Result<(), String> {
    *messages += 1;
    if *messages > MAX_MESSAGES {
        return Err(format!("it holds more than {MAX_MESSAGES} messages"));
    }
    if depth > MAX_DEPTH {
        return Err(format!("its messages lie more than {MAX_DEPTH} deep"));
    }
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                let inner = take(&mut bytes, length)?;
                if let Some(kind) = child(kind, key >> 3) {
                    message(inner, kind, depth + 1, messages)?;
                }
            }
            5 => drop(take(&mut bytes, 4)?),
            other => return Err(format!("field {} has wire type {other}", key >> 3)),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or("it ends within a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is longer than 10 bytes".to_string())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    match usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)) {
        Some((head, rest)) => {
            *bytes = rest;
            Ok(head)
        }
        None => Err(format!("a field of {length} bytes begins {} bytes before its end", bytes.len())),
    }
}
