#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};

use super::{Dim, Fact, Facts};
use crate::ir::{Attr, DType, Graph, Node, Port, PortDim, Weight};

/// Facts of what one operator makes of inputs `i0`, `i1`, ... (an unset one is left out); outputs are `o0`, ...
struct Case {
    facts: Facts,
    node: Node,
}

fn case(op: &str) -> Case {
    Case { facts: Facts::default(), node: Node { op: op.to_string(), outputs: vec!["o0".into()], ..Node::default() } }
}

fn dim(text: &str) -> Dim {
    match text.parse() {
        Ok(number) => Dim::known(number),
        Err(_) => text.split('*').fold(Dim::known(1), |product, factor| {
            &product * &factor.parse().map(Dim::known).unwrap_or_else(|_| Dim::symbol(factor))
        }),
    }
}

fn dims(text: &str) -> Vec<Dim> {
    text.split_whitespace().map(dim).collect()
}

impl Case {
    fn fact(mut self, fact: Fact) -> Self {
        let name = format!("i{}", self.node.inputs.len());
        self.facts.set(&name, fact);
        self.node.inputs.push(name);
        self
    }

    fn float(self, shape: &str) -> Self {
        self.fact(Fact::new(Some(DType::F32), Some(dims(shape))))
    }

    fn int(self, shape: &str) -> Self {
        self.fact(Fact::new(Some(DType::I64), Some(dims(shape))))
    }

    /// A one-dimensional integer tensor of these elements.
    fn value(self, elements: &str) -> Self {
        let value = dims(elements);
        let shape = vec![Dim::known(value.len() as i64)];
        self.fact(Fact { dtype: Some(DType::I64), shape: Some(shape), value: Some(value) })
    }

    fn scalar(self, element: &str) -> Self {
        self.fact(Fact { dtype: Some(DType::I64), shape: Some(vec![]), value: Some(vec![dim(element)]) })
    }

    fn weight(self, weight: Weight) -> Self {
        self.fact(Fact::of_weight(&weight))
    }

    fn absent(mut self) -> Self {
        self.node.inputs.push(String::new());
        self
    }

    fn attr(mut self, name: &str, attr: Attr) -> Self {
        self.node.attrs.insert(name.to_string(), attr);
        self
    }

    fn int_attr(self, name: &str, value: i64) -> Self {
        self.attr(name, Attr::Int(value))
    }

    fn outputs(mut self, count: usize) -> Self {
        self.node.outputs = (0..count).map(|i| format!("o{i}")).collect();
        self
    }

    fn run(mut self) -> Facts {
        self.facts.infer_node(&self.node);
        self.facts
    }

    fn shape(self) -> String {
        show(self.run().shape("o0"))
    }

    fn elements(self) -> String {
        show(self.run().value("o0"))
    }
}

fn show(dims: Option<&[Dim]>) -> String {
    dims.map_or("?".to_string(), |dims| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(" "))
}

#[test]
fn elementwise_operators_broadcast() {
    assert_eq!(case("Add").float("batch sequence 32").float("32").shape(), "batch sequence 32");
    assert_eq!(
        case("Mul").float("batch 1 1 sequence").float("batch 4 sequence 1").shape(),
        "batch 4 sequence sequence"
    );
    assert_eq!(case("Where").int("1 1 s s").float("b 4 s s").float("").shape(), "b 4 s s");
    assert_eq!(case("Max").float("b s").float("").float("1").shape(), "b s");
    assert_eq!(case("Gelu").float("b s 8").shape(), "b s 8");
    let facts = case("LessOrEqual").int("s 1").int("s").run();
    assert_eq!((show(facts.shape("o0")).as_str(), facts.dtype("o0")), ("s s", Some(DType::Bool)));
    let facts = case("Cast").float("b s").int_attr("to", 10).run();
    assert_eq!(facts.dtype("o0"), Some(DType::F16));
    let facts = case("Dropout").float("b s").outputs(2).run();
    assert_eq!(facts.dtype("o1"), Some(DType::Bool));
}

#[test]
fn integer_elements_are_followed() {
    assert_eq!(case("Mul").scalar("sequence").value("2 3").elements(), "2*sequence 3*sequence");
    assert_eq!(case("Div").scalar("batch*32").scalar("4").elements(), "8*batch");
    assert_eq!(case("Div").scalar("-7").scalar("2").elements(), "-3");
    assert_eq!(case("Mod").value("-7 7").scalar("3").elements(), "2 1");
    assert_eq!(case("Equal").value("batch -1 4").value("-1 -1 4").elements(), "0 1 1");
    assert_eq!(case("Where").value("0 1").value("7 8").value("batch s").elements(), "batch 8");
    assert_eq!(case("Greater").value("batch 0").scalar("0").elements(), "1 0");
    assert_eq!(case("Min").scalar("sequence").scalar("1").elements(), "1");
    assert_eq!(case("Neg").scalar("s").elements(), "-s");
    assert_eq!(case("Sign").value("s -3 0").elements(), "1 -1 0");
    assert_eq!(case("Abs").value("s -3").elements(), "s 3");
    assert_eq!(case("Clip").value("-2 5 s").scalar("1").absent().elements(), "1 5 s");
    assert_eq!(case("Cast").value("0 s").int_attr("to", 9).elements(), "0 1");
    assert_eq!(case("Cast").value("5 s").int_attr("to", 1).elements(), "5 s");
    assert_eq!(case("Cast").value("16777217").int_attr("to", 1).elements(), "?");
    assert_eq!(case("Cast").weight(Weight::f32s(&[], &[1.0])).int_attr("to", 7).elements(), "1");
    assert_eq!(case("Cast").weight(Weight::f32s(&[], &[1.5])).int_attr("to", 7).elements(), "?");
    assert_eq!(case("Cast").weight(Weight::f32s(&[], &[f32::NAN])).int_attr("to", 7).elements(), "?");
    let three = || Weight::f32s(&[], &[3.0]);
    assert_eq!(case("Div").weight(three()).weight(Weight::f32s(&[], &[2.0])).elements(), "?");
    assert_eq!(case("Mul").weight(three()).weight(Weight::f32s(&[], &[2.0])).elements(), "6");
    assert_eq!(case("Not").value("0 1").elements(), "1 0");
}

#[test]
fn shapes_become_values_and_back() {
    assert_eq!(case("Shape").float("batch sequence 32").elements(), "batch sequence 32");
    assert_eq!(case("Shape").float("b s 8").int_attr("start", 1).int_attr("end", -1).elements(), "s");
    assert_eq!(case("Size").float("b s 8").elements(), "8*b*s");
    assert_eq!(case("Gather").value("b s 8").scalar("-1").elements(), "8");
    assert_eq!(case("Gather").value("b s 8").value("2 0").elements(), "8 b");
    assert_eq!(case("Concat").value("b").value("s 4").int_attr("axis", 0).elements(), "b s 4");
    assert_eq!(case("Slice").value("b s 8").value("1").value("9223372036854775807").elements(), "s 8");
    assert_eq!(case("Slice").value("b s 8").value("-1").value("-4").value("0").value("-1").elements(), "8 s b");
    assert_eq!(case("Unsqueeze").scalar("s").value("0").elements(), "s");
    assert_eq!(case("Squeeze").value("s").value("0").shape(), "");
    assert_eq!(case("ReduceProd").value("b s 8").elements(), "8*b*s");
    assert_eq!(case("ReduceMax").value("2 8 3").int_attr("keepdims", 0).elements(), "8");
    assert_eq!(case("Range").scalar("0").scalar("6").scalar("2").elements(), "0 2 4");
    assert_eq!(case("Range").scalar("0").scalar("s").scalar("1").shape(), "s");
    assert_eq!(case("Range").scalar("p").scalar("p*2").scalar("1").shape(), "p");
    let ones = Attr::Tensor(Weight::i64s(&[1], &[1]));
    assert_eq!(case("ConstantOfShape").value("2").attr("value", ones.clone()).elements(), "1 1");
    assert_eq!(case("ConstantOfShape").value("b 2").attr("value", ones).shape(), "b 2");
    assert_eq!(case("Tile").value("b 2").value("2").elements(), "b 2 b 2");
    assert_eq!(case("Transpose").weight(Weight::i64s(&[2, 2], &[1, 2, 3, 4])).elements(), "1 3 2 4");
    assert_eq!(case("Expand").value("7").value("3").elements(), "7 7 7");
    let halves = case("Split").value("b s 8 9").int_attr("num_outputs", 2).outputs(2).run();
    assert_eq!(show(halves.value("o1")), "8 9");
}

#[test]
fn reshape_solves_for_what_is_left() {
    assert_eq!(case("Reshape").float("batch sequence 32").value("0 0 4 8").shape(), "batch sequence 4 8");
    assert_eq!(case("Reshape").float("batch sequence 32").value("batch sequence -1 8").shape(), "batch sequence 4 8");
    assert_eq!(case("Reshape").float("batch sequence 32").value("-1 32").shape(), "batch*sequence 32");
    assert_eq!(case("Reshape").float("b*s 32").value("b -1 32").shape(), "b s 32");
    assert_eq!(case("Reshape").float("0 4").value("0 4").int_attr("allowzero", 1).shape(), "0 4");
    assert_eq!(case("Reshape").float("b s").int("3").shape(), "o0.0 o0.1 o0.2");
    assert_eq!(case("Flatten").float("b s 8").int_attr("axis", 2).shape(), "b*s 8");
    assert_eq!(case("Flatten").float("b s 8").int_attr("axis", -3).shape(), "1 8*b*s");
}

#[test]
fn movement() {
    assert_eq!(case("Transpose").float("b s 4 8").attr("perm", Attr::Ints(vec![0, 2, 1, 3])).shape(), "b 4 s 8");
    assert_eq!(case("Transpose").float("b s 8").shape(), "8 s b");
    assert_eq!(case("Unsqueeze").float("b s").value("1 -1").shape(), "b 1 s 1");
    assert_eq!(case("Squeeze").float("b 1 1 s").value("1 -2").shape(), "b s");
    assert_eq!(case("Squeeze").float("8 1 3").shape(), "8 3");
    assert_eq!(case("Squeeze").float("b 1").shape(), "?");
    assert_eq!(case("Expand").float("b 2 1 s 8").value("b 2 2 s 8").shape(), "b 2 2 s 8");
    assert_eq!(case("Expand").float("1 8").value("3 1 1").shape(), "3 1 8");
    assert_eq!(case("Concat").float("b s 4").float("b s 12").int_attr("axis", -1).shape(), "b s 16");
    assert_eq!(case("Pad").float("b s").value("0 1 0 2").shape(), "b s + 3");
    assert_eq!(case("Pad").float("b s").value("1 2").absent().value("-1").shape(), "b s + 3");
    assert_eq!(case("Tile").float("b 1").value("2 s").shape(), "2*b s");
    let split = case("Split").float("b s 96").value("32 64").int_attr("axis", 2).outputs(2).run();
    assert_eq!((show(split.shape("o0")), show(split.shape("o1"))), ("b s 32".into(), "b s 64".into()));
    let split = case("Split").float("b 7").int_attr("axis", 1).int_attr("num_outputs", 3).outputs(3).run();
    assert_eq!((show(split.shape("o0")), show(split.shape("o2"))), ("b 3".into(), "b 1".into()));
}

#[test]
fn slices_stay_exact_where_they_can() {
    let slice = |start: &str, end: &str| case("Slice").float("b sequence 8").value(start).value(end).value("1").shape();
    assert_eq!(slice("0", "9223372036854775807"), "b sequence 8");
    assert_eq!(slice("1", "2147483647"), "b sequence - 1 8");
    assert_eq!(slice("0", "1"), "b 1 8");
    assert_eq!(slice("-1", "9223372036854775807"), "b 1 8");
    assert_eq!(slice("0", "-1"), "b sequence - 1 8");
    assert_eq!(slice("0", "sequence"), "b sequence 8");
    assert_eq!(slice("0", "4"), "b min(4, sequence) 8");
    assert_eq!(case("Slice").float("4 10").value("1").value("8").value("1").value("3").shape(), "4 3");
    assert_eq!(case("Slice").float("4 10").value("-1").value("-99").value("1").value("-4").shape(), "4 3");
    assert_eq!(case("Slice").float("4 10").value("8").value("2").value("1").shape(), "4 0");
    // A table of positions cut to the length, then added to what has that length.
    assert_eq!(case("Slice").float("1 64").value("0").value("sequence").value("1").shape(), "1 min(64, sequence)");
    // The smallest integer stands for the beginning.
    assert_eq!(case("Slice").value("b s 4 8").value("-9223372036854775808").value("-2").elements(), "b s");
    assert_eq!(slice("-9223372036854775808", "-1"), "b sequence - 1 8");
    assert_eq!(case("Slice").float("4 10").int("1").int("1").value("1").shape(), "4 o0.1");
}

#[test]
fn products_and_quantised_weights() {
    assert_eq!(case("MatMul").float("b 4 s 8").float("b 4 8 s").shape(), "b 4 s s");
    assert_eq!(case("MatMul").float("b s 32").float("32 64").shape(), "b s 64");
    assert_eq!(case("MatMul").float("32").float("b 32 64").shape(), "b 64");
    assert_eq!(case("MatMul").float("b s 32").float("32").shape(), "b s");
    assert_eq!(case("Gemm").float("b*s 32").float("64 32").int_attr("transB", 1).shape(), "b*s 64");
    assert_eq!(
        case("Einsum").float("b s 8").float("8 t").attr("equation", Attr::Str("bik,kj->bij".into())).shape(),
        "b s t"
    );
    let mut nbits = case("MatMulNBits").float("b s 32").int("64 1 16").int_attr("N", 64);
    nbits.node.domain = "com.microsoft".into();
    assert_eq!(nbits.shape(), "b s 64");
    let facts = case("DequantizeLinear").int("32 64").float("64").run();
    assert_eq!((show(facts.shape("o0")).as_str(), facts.dtype("o0")), ("32 64", Some(DType::F32)));
}

#[test]
fn reductions_and_normalisations() {
    assert_eq!(case("ReduceMean").float("b s 8").value("-1").shape(), "b s 1");
    assert_eq!(case("ReduceSum").float("b s 8").value("0 1").int_attr("keepdims", 0).shape(), "8");
    assert_eq!(case("ReduceSum").float("b s 8").int_attr("keepdims", 0).shape(), "");
    assert_eq!(case("ReduceSum").float("b s").int_attr("noop_with_empty_axes", 1).shape(), "b s");
    assert_eq!(case("ArgMax").float("b s 8").int_attr("axis", -1).int_attr("keepdims", 0).shape(), "b s");
    let facts = case("LayerNormalization").float("b s 8").float("8").float("8").outputs(3).run();
    assert_eq!((show(facts.shape("o0")), show(facts.shape("o2"))), ("b s 8".into(), "b s 1".into()));
    let facts = case("TopK").float("b 10").value("3").outputs(2).run();
    assert_eq!((show(facts.shape("o1")).as_str(), facts.dtype("o1")), ("b 3", Some(DType::I64)));
}

#[test]
fn reading_by_index() {
    assert_eq!(case("Gather").float("101 32").int("b s").shape(), "b s 32");
    assert_eq!(case("Gather").float("b s 32").scalar("0").int_attr("axis", 1).shape(), "b 32");
    assert_eq!(case("GatherElements").float("b 4 s 9").int("b 4 s s").int_attr("axis", 3).shape(), "b 4 s s");
    assert_eq!(case("GatherND").float("b s 8").int("n 2").shape(), "n 8");
    assert_eq!(case("GatherND").float("b s 8").int("b n 1").int_attr("batch_dims", 1).shape(), "b n 8");
    assert_eq!(case("ScatterND").float("b s").int("n 2").float("n").shape(), "b s");
    assert_eq!(case("OneHot").int("b s").scalar("5").float("2").shape(), "b s 5");
    assert_eq!(case("NonZero").int("b s").shape(), "2 o0.1");
}

fn branch(op: &str, output: &str) -> Attr {
    let node = Node { op: op.into(), inputs: vec!["x".into()], outputs: vec![output.into()], ..Node::default() };
    let outputs = vec![Port { name: output.into(), dtype: DType::F32, shape: None }];
    Attr::Graph(Box::new(Graph { nodes: vec![node], outputs, ..Graph::default() }))
}

#[test]
fn branches_are_joined() {
    let run = |condition: Option<&str>, other: &str| {
        let case = match condition {
            Some(known) => case("If").scalar(known),
            None => case("If").int(""),
        };
        let mut case = case.attr("then_branch", branch("Tanh", "t")).attr("else_branch", branch(other, "e"));
        case.facts.set("x", Fact::new(Some(DType::F32), Some(dims("b 1 s"))));
        let facts = case.run();
        assert!(facts.get("t").is_none() && facts.get("e").is_none());
        show(facts.shape("o0"))
    };
    assert_eq!(run(None, "Erf"), "b 1 s");
    assert_eq!(run(None, "Transpose"), "o0.0 1 o0.2");
    assert_eq!(run(Some("1"), "Transpose"), "b 1 s");
    assert_eq!(run(Some("0"), "Transpose"), "s 1 b");
    assert_eq!(run(None, "Shape"), "?");
}

#[test]
fn inputs_share_batch_and_sequence() {
    let port = |name: &str, dtype, dims: &[PortDim]| Port { name: name.into(), dtype, shape: Some(dims.to_vec()) };
    let named = |name: &str| PortDim::Symbol(name.into());
    let graph = Graph {
        inputs: vec![
            port("input_ids", DType::I64, &[named("dynamic_axes_1"), named("dynamic_axes_2")]),
            port("attention_mask", DType::I64, &[PortDim::Unknown, named("dynamic_axes_3")]),
            port("labels", DType::I64, &[named("dynamic_axes_1")]),
            port("hidden", DType::F32, &[named("dynamic_axes_1"), named("width"), PortDim::Unknown]),
            port("fixed", DType::I64, &[PortDim::Known(1), named("dynamic_axes_2")]),
        ],
        ..Graph::default()
    };
    let facts = Facts::of_graph(&graph);
    assert_eq!(show(facts.shape("input_ids")), "batch sequence");
    assert_eq!(show(facts.shape("attention_mask")), "batch sequence");
    assert_eq!(show(facts.shape("labels")), "batch");
    assert_eq!(show(facts.shape("hidden")), "batch width hidden.2");
    assert_eq!(show(facts.shape("fixed")), "1 sequence");
    let sizes = super::sizes(3, 7);
    assert_eq!(facts.shape_at("input_ids", &sizes), Some(vec![3, 7]));
    assert_eq!(facts.shape_at("hidden", &sizes), None);
    assert_eq!(show(facts.bind(&sizes).shape("fixed")), "1 7");
    assert_eq!(show(Facts::of_graph_at(&graph, &sizes).shape("labels")), "3");
}

#[test]
fn a_branch_that_is_always_taken_is_inlined() {
    let node = |op: &str, inputs: &[&str], output: &str| Node {
        op: op.into(),
        inputs: inputs.iter().map(|name| name.to_string()).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    };
    let port = |name: &str, shape: Option<Vec<PortDim>>| Port { name: name.into(), dtype: DType::F32, shape };
    let branch = |nodes: Vec<Node>, output: &str| {
        let weights = BTreeMap::from([(format!("{output}.factor"), Weight::f32s(&[], &[2.0]))]);
        let graph = Graph { nodes, weights, outputs: vec![port(output, None)], ..Graph::default() };
        Attr::Graph(Box::new(graph))
    };
    let choose = |condition: &str, output: &str, branches: [Attr; 2]| {
        let names = ["then_branch", "else_branch"].map(String::from);
        Node { attrs: names.into_iter().zip(branches).collect(), ..node("If", &[condition], output) }
    };
    let scale = |op: &str, output: &str| {
        let (inner, factor) = (format!("{output}.inner"), format!("{output}.factor"));
        branch(vec![node(op, &["x"], &inner), node("Mul", &[&inner, &factor], output)], output)
    };
    // Within a branch that is taken, one that may be.
    let negate = branch(vec![node("Neg", &["around"], "deep")], "deep");
    let nested = [node("Abs", &["chosen"], "around"), choose("condition", "out", [scale("Exp", "deep"), negate])];
    let weight = |name: &str, values: &[i64]| (name.to_string(), Weight::i64s(&[values.len()], values));
    let unknown = || Some(vec![PortDim::Symbol("b".into()), PortDim::Known(8)]);
    let mut graph = Graph {
        nodes: vec![
            node("Shape", &["x"], "shape"),
            node("Gather", &["shape", "last"], "width"),
            node("Gather", &["shape", "first"], "rows"),
            node("Equal", &["width", "eight"], "known"),
            node("Equal", &["rows", "eight"], "condition"),
            choose("known", "chosen", [scale("Tanh", "out"), scale("Erf", "out")]),
            choose("known", "result", [branch(nested.into(), "out"), scale("Erf", "out")]),
        ],
        weights: BTreeMap::from([weight("last", &[-1]), weight("first", &[0]), weight("eight", &[8])]),
        inputs: vec![port("x", unknown()), port("y", unknown())],
        outputs: vec![port("result", None)],
        ..Graph::default()
    };
    super::inline_known_branches(&mut graph);
    let ops: Vec<&str> = graph.nodes[5..].iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops, ["Tanh", "Mul", "Identity", "Abs", "If", "Identity"]);
    let made: HashSet<&String> = graph.nodes.iter().flat_map(|node| &node.outputs).collect();
    assert!(made.len() == graph.nodes.len() && graph.captures().is_empty(), "{graph:?}");
    let (product, may_be) = (&graph.nodes[6], &graph.nodes[9]);
    assert_eq!(product.inputs[0], graph.nodes[5].outputs[0]);
    assert_eq!(graph.weights[&product.inputs[1]].to_f32s(), Some(vec![2.0]));
    assert!(may_be.reads().contains(&graph.nodes[8].outputs[0].as_str()));
    assert_eq!(show(Facts::of_graph(&graph).shape("result")), "b 8");
}

/// Every operator on every kind of wrong input: nothing may panic, and nothing but facts may come of it.
#[test]
fn malformed_nodes_are_survived() {
    let ops = "Identity Neg CumSum Softmax Add Div Mod Pow Min Equal Where Clip Cast CastLike Dropout Shape Size Range Constant \
        ConstantOfShape Reshape Flatten Squeeze Unsqueeze Slice Transpose Expand Concat Split Pad Tile ReduceSum \
        ArgMax TopK LayerNormalization MatMul Gemm Einsum DequantizeLinear QuantizeLinear Gather GatherElements GatherND \
        OneHot NonZero If IsNaN Trilu SoftmaxCrossEntropyLoss MatMulNBits EyeLike Unheard";
    let empty = Weight::i64s(&[0], &[]);
    let extreme = Weight::i64s(&[3], &[i64::MIN, i64::MAX, -1]);
    let matrix = Weight::i64s(&[2, 2], &[-9, 9, 0, 0]);
    let inputs: Vec<Fact> = vec![
        Fact::default(),
        Fact::of_weight(&empty),
        Fact::of_weight(&extreme),
        Fact::of_weight(&matrix),
        Fact::of_weight(&Weight::i64s(&[], &[i64::MIN])),
        Fact::of_weight(&Weight::i64s(&[1], &[0])),
        Fact::new(Some(DType::F32), Some(dims("b s 8"))),
        Fact::new(Some(DType::F32), Some(vec![])),
        Fact::new(None, Some(vec![Dim::known(i64::MAX); 3])),
    ];
    let attrs: Vec<BTreeMap<String, Attr>> = vec![
        BTreeMap::new(),
        ["axis", "start", "end", "to", "num_outputs", "batch_dims", "N", "keepdims", "dtype"]
            .iter()
            .map(|name| (name.to_string(), Attr::Int(i64::MIN)))
            .collect(),
        ["axis", "start", "end", "batch_dims", "num_outputs"]
            .iter()
            .map(|name| (name.to_string(), Attr::Int(i64::MAX)))
            .chain([
                ("perm".to_string(), Attr::Ints(vec![-1, 99])),
                ("equation".to_string(), Attr::Str("é->->".into())),
            ])
            .collect(),
    ];
    let mut made = 0;
    for op in ops.split_whitespace() {
        for attrs in &attrs {
            for (i, a) in inputs.iter().enumerate() {
                for (j, b) in inputs.iter().enumerate() {
                    for count in [0, 1, 2, 3, 5] {
                        let mut case = case(op).outputs(1 + j % 2);
                        for k in 0..count {
                            case = case.fact([a, b][(k + i) % 2].clone());
                        }
                        case.node.attrs = attrs.clone();
                        made += case.run().shape("o0").is_some() as usize;
                    }
                }
            }
        }
    }
    assert!(made > 1000);
}

/// Each `Gather` of a value by itself nearly doubles the rank.
#[test]
fn ranks_do_not_grow_without_end() {
    let mut facts = Facts::default();
    facts.set("v0", Fact::new(Some(DType::I64), Some(dims("b s 2"))));
    for i in 0..200 {
        let input = format!("v{i}");
        let outputs = vec![format!("v{}", i + 1)];
        facts.infer_node(&Node { op: "Gather".into(), inputs: vec![input.clone(), input], outputs, ..Node::default() });
    }
    assert_eq!((facts.rank("v2"), facts.rank("v200")), (Some(9), None));
}
