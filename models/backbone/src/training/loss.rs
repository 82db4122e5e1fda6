//! Pooling, head and loss as nodes of the graph.
//!
//! Every loss is `sum_i weight_i * loss_i` with the weights a graph input, so that whoever feeds the graph decides on
//! means, on filler rows (weight 0) and on accumulation over several batches.

use fedtt_tt::form::HeadForm;
use serde::{Deserialize, Serialize};

use crate::graft::{Grafted, activate, add_input, linear};
use crate::ir::{Attr, Builder, DType, Weight};
use crate::shape::Dim;

/// How a sequence's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over unmasked tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last unmasked token.
    Last,
}

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "task")]
pub enum Task {
    /// One of `classes` labels per text: cross-entropy.
    Classify {
        /// Number of labels.
        classes: usize,
    },
    /// `targets` numbers per text: squared error.
    Regress {
        /// Number of targets.
        targets: usize,
    },
    /// The next token: cross-entropy per token.
    CausalLm,
}

/// Values the loss part adds.
pub(super) struct Loss {
    /// Weighted sum of losses, a scalar.
    pub(super) loss: String,
    /// Logits or predictions `[batch, outputs]`; for [`Task::CausalLm`] the loss of each token, `[batch, sequence]`.
    pub(super) result: String,
}

const BATCH: &str = "batch";
const SEQUENCE: &str = "sequence";

/// Pools `hidden` (`[batch, sequence, hidden]`) and applies the head.
pub(super) fn pooled_head(g: &mut Grafted, hidden: &str, mask: &str, pooling: Pooling, head: &HeadForm) -> String {
    let hidden = g.builder.cast(hidden, DType::F32);
    let mut x = pool(&mut g.builder, &hidden, mask, pooling);
    if let Some((form, activation)) = &head.hidden {
        x = linear(g, &x, form, "head.hidden");
        x = activate(&mut g.builder, &x, *activation);
    }
    linear(g, &x, &head.out, "head.out")
}

fn pool(b: &mut Builder, hidden: &str, mask: &str, pooling: Pooling) -> String {
    let (axis_1, axis_2) = (b.ints(&[1]), b.ints(&[2]));
    if pooling == Pooling::Cls {
        let first = b.constant("first", Weight::i64s(&[], &[0]));
        return b.op("Gather", &[hidden, &first], &[("axis", Attr::Int(1))]);
    }
    let mask = b.cast(mask, DType::F32);
    let share = match pooling {
        Pooling::Last => {
            // 1 at the unmasked position with the highest index, for left- and right-padded rows alike.
            let ones = ones_like(b, &mask);
            let along = b.constant("axis", Weight::i64s(&[], &[1]));
            let position = b.op("CumSum", &[&ones, &along], &[]);
            let position = b.op("Mul", &[&position, &mask], &[]);
            let last = b.op("ReduceMax", &[&position, &axis_1], &[("keepdims", Attr::Int(1))]);
            let is_last = b.op("Equal", &[&position, &last], &[]);
            b.cast(&is_last, DType::F32)
        }
        _ => {
            let count = b.op("ReduceSum", &[&mask, &axis_1], &[("keepdims", Attr::Int(1))]);
            let one = b.scalar(1.0);
            let count = b.op("Max", &[&count, &one], &[]);
            b.op("Div", &[&mask, &count], &[])
        }
    };
    let share = b.op("Unsqueeze", &[&share, &axis_2], &[]);
    let weighted = b.op("Mul", &[hidden, &share], &[]);
    b.op("ReduceSum", &[&weighted, &axis_1], &[("keepdims", Attr::Int(0))])
}

fn ones_like(b: &mut Builder, value: &str) -> String {
    let shape = b.op("Shape", &[value], &[]);
    b.op("ConstantOfShape", &[&shape], &[("value", Attr::Tensor(Weight::f32s(&[1], &[1.0])))])
}

/// Appends the loss of `task` on `outputs`, with `labels` and `weights` as new graph inputs.
pub(super) fn loss(b: &mut Builder, outputs: &str, task: Task) -> Loss {
    let (batch, sequence) = (Dim::symbol(BATCH), Dim::symbol(SEQUENCE));
    match task {
        Task::Classify { .. } => {
            add_input(b, "labels", DType::I64, std::slice::from_ref(&batch));
            add_input(b, "weights", DType::F32, &[batch]);
            let each = cross_entropy(b, outputs);
            Loss { loss: weighted_sum(b, &each), result: outputs.to_string() }
        }
        Task::CausalLm => {
            let outputs = b.cast(outputs, DType::F32);
            add_input(b, "labels", DType::I64, &[batch.clone(), sequence.clone()]);
            add_input(b, "weights", DType::F32, &[batch, sequence]);
            let each = cross_entropy(b, &outputs);
            Loss { loss: weighted_sum(b, &each), result: each }
        }
        Task::Regress { targets } => {
            add_input(b, "labels", DType::F32, &[batch.clone(), Dim::known(targets as i64)]);
            add_input(b, "weights", DType::F32, &[batch]);
            let error = b.op("Sub", &[outputs, "labels"], &[]);
            let squared = b.op("Mul", &[&error, &error], &[]);
            let last = b.ints(&[-1]);
            let each = b.op("ReduceSum", &[&squared, &last], &[("keepdims", Attr::Int(0))]);
            Loss { loss: weighted_sum(b, &each), result: outputs.to_string() }
        }
    }
}

/// `-log softmax(logits)[label]` along the last axis.
fn cross_entropy(b: &mut Builder, logits: &str) -> String {
    let last = b.ints(&[-1]);
    let log_probability = b.op("LogSoftmax", &[logits], &[("axis", Attr::Int(-1))]);
    let index = b.op("Unsqueeze", &["labels", &last], &[]);
    let axis = b.facts.rank(logits).map_or(-1, |rank| rank as i64 - 1);
    let picked = b.op("GatherElements", &[&log_probability, &index], &[("axis", Attr::Int(axis))]);
    let picked = b.op("Squeeze", &[&picked, &last], &[]);
    b.op("Neg", &[&picked], &[])
}

fn weighted_sum(b: &mut Builder, each: &str) -> String {
    let weighted = b.op("Mul", &[each, "weights"], &[]);
    b.op("ReduceSum", &[&weighted], &[("keepdims", Attr::Int(0))])
}

/// Appends `sum(output * R * mask)` with `R` (`[batch, sequence, width]`) a new graph input: a loss whose gradient
/// reaches every unmasked position, for checking gradients.
pub(super) fn probe_loss(b: &mut Builder, output: &str, mask: Option<&str>, width: usize) -> String {
    let output = b.cast(output, DType::F32);
    add_input(b, "R", DType::F32, &[Dim::symbol(BATCH), Dim::symbol(SEQUENCE), Dim::known(width as i64)]);
    let mut weighted = b.op("Mul", &[&output, "R"], &[]);
    if let Some(mask) = mask {
        let last = b.ints(&[-1]);
        let mask = b.cast(mask, DType::F32);
        let mask = b.op("Unsqueeze", &[&mask, &last], &[]);
        weighted = b.op("Mul", &[&weighted, &mask], &[]);
    }
    b.op("ReduceSum", &[&weighted], &[("keepdims", Attr::Int(0))])
}
