//! Nodes as steps of a program.

use std::collections::HashMap;

use fedtt_runtime::rows::{Binary, Program, Reduce, Source, Step, Ternary, Unary};

use crate::ir::{Graph, Node};
use crate::shape::Facts;

/// The inputs of a node that are tensors of its rows, and not axes.
pub(super) fn tensors(node: &Node) -> impl Iterator<Item = &String> {
    let count = if node.op.starts_with("Reduce") { 1 } else { node.inputs.len() };
    node.inputs.iter().take(count).filter(|input| !input.is_empty())
}

/// Whether a program could do what `node` does, shapes aside.
pub(super) fn covers(node: &Node, graph: &Graph, facts: &Facts) -> bool {
    let Some(rank) = node.input(0).and_then(|input| facts.rank(input)).filter(|_| node.domain.is_empty()) else {
        return false;
    };
    let is_last = |axis: i64| axis == -1 || axis == rank as i64 - 1;
    match node.op.as_str() {
        "ReduceSum" | "ReduceMean" | "ReduceMax" => {
            let axes = node.input(1).and_then(|axes| facts.ints(axes));
            node.int("keepdims").unwrap_or(1) == 1 && matches!(axes.as_deref(), Some([axis]) if is_last(*axis))
        }
        "Softmax" => is_last(node.int("axis").unwrap_or(-1)),
        "LayerNormalization" => is_last(node.int("axis").unwrap_or(-1)) && node.int("stash_type").unwrap_or(1) == 1,
        "Gelu" => matches!(node.str("approximate"), None | Some("none" | "tanh")),
        "Pow" => node.input(1).and_then(|exponent| graph.number(exponent)).is_some_and(|p| [2.0, 3.0].contains(&p)),
        "Max" | "Min" => node.inputs.len() == 2,
        "Where" => true,
        op => unary(op).is_some() || binary(op).is_some() || op == "HardSigmoid",
    }
}

fn unary(op: &str) -> Option<Unary> {
    Some(match op {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Exp" => Unary::Exp,
        "Erf" => Unary::Erf,
        "IsNaN" => Unary::IsNan,
        "Reciprocal" => Unary::Reciprocal,
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Sign" => Unary::Sign,
        "Sqrt" => Unary::Sqrt,
        "Tanh" => Unary::Tanh,
        _ => return None,
    })
}

fn binary(op: &str) -> Option<Binary> {
    Some(match op {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    })
}

/// A program in the making.
pub(super) struct Translation<'a> {
    graph: &'a Graph,
    inputs: Vec<String>,
    steps: Vec<Step>,
    /// Where the values of the nodes added are.
    made: HashMap<&'a str, Source>,
}

impl<'a> Translation<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        Translation { graph, inputs: Vec::new(), steps: Vec::new(), made: HashMap::new() }
    }

    /// The inputs' names and the program that makes `outputs`, of the steps that they need; none if one of them is not a step's
    /// value.
    pub(super) fn finish(self, outputs: &[String]) -> Option<(Vec<String>, Program)> {
        let step = |output: &String| match self.made.get(output.as_str()) {
            Some(Source::Step(step)) => Some(*step),
            _ => None,
        };
        let outputs = outputs.iter().map(step).collect::<Option<Vec<usize>>>()?;
        let (program, inputs) = Program::new(self.inputs.len(), self.steps, outputs).ok()?.pruned();
        let mut names: Vec<Option<String>> = self.inputs.into_iter().map(Some).collect();
        Some((inputs.into_iter().filter_map(|input| names[input].take()).collect(), program))
    }

    /// Adds what `node` does, after the nodes it reads from.
    pub(super) fn add(&mut self, node: &'a Node) -> Option<()> {
        let output = node.output(0)?;
        let x = self.source(node.input(0)?);
        let value = match node.op.as_str() {
            "ReduceSum" => self.reduce(Reduce::Sum, x),
            "ReduceMean" => self.reduce(Reduce::Mean, x),
            "ReduceMax" => self.reduce(Reduce::Max, x),
            "Softmax" => self.softmax(x),
            "LayerNormalization" => return self.layer_normalization(node, x),
            "Gelu" if node.str("approximate") == Some("tanh") => self.tanh_gelu(x),
            "Gelu" => self.unary(Unary::Gelu, x),
            "HardSigmoid" => {
                let scaled = self.binary(Binary::Mul, x, Source::Number(node.float("alpha").unwrap_or(0.2)));
                let line = self.binary(Binary::Add, scaled, Source::Number(node.float("beta").unwrap_or(0.5)));
                let floor = self.binary(Binary::Max, line, Source::Number(0.0));
                self.binary(Binary::Min, floor, Source::Number(1.0))
            }
            "Pow" => {
                let square = self.binary(Binary::Mul, x, x);
                match self.graph.number(node.input(1)?)? {
                    2.0 => square,
                    _ => self.binary(Binary::Mul, square, x),
                }
            }
            "Where" => {
                let sources = [x, self.source(node.input(1)?), self.source(node.input(2)?)];
                self.push(Step::Ternary(Ternary::Where, sources))
            }
            op => match (unary(op), binary(op)) {
                (Some(op), _) => self.unary(op, x),
                (_, Some(op)) => {
                    let y = self.source(node.input(1)?);
                    let slope = (op == Binary::Add).then(|| self.slope_of_gelu(x, y)).flatten();
                    slope.unwrap_or_else(|| self.binary(op, x, y))
                }
                _ => return None,
            },
        };
        self.made.insert(output, value);
        Some(())
    }

    /// The derivative of Gelu as one step, where the sum of `a` and `b` is what its rule makes of it: with t = x / sqrt(2)
    /// (1 + erf(t))/2 + t exp(-ln(pi)/2 - t^2).
    fn slope_of_gelu(&mut self, a: Source, b: Source) -> Option<Source> {
        let step = |source: Source| match source {
            Source::Step(at) => self.steps.get(at).copied(),
            _ => None,
        };
        let times = |source: Source, number: f32| match step(source)? {
            Step::Binary(Binary::Mul, x, Source::Number(by)) if (by - number).abs() < 1e-6 => Some(x),
            _ => None,
        };
        let operand = |source: Source, op: Binary| match step(source)? {
            Step::Binary(found, x, Source::Number(_)) if found == op => Some(x),
            _ => None,
        };
        let Step::Binary(Binary::Mul, t, bell) = step(b)? else { return None };
        let Step::Unary(Unary::Exp, exponent) = step(bell)? else { return None };
        let Step::Binary(Binary::Sub, Source::Number(offset), square) = step(exponent)? else { return None };
        let x = times(t, std::f32::consts::FRAC_1_SQRT_2)?;
        let line = operand(operand(operand(a, Binary::Min)?, Binary::Max)?, Binary::Add)?;
        let squares = step(square)? == Step::Binary(Binary::Mul, t, t);
        let is_error = step(times(line, 0.5)?)? == Step::Unary(Unary::Erf, t);
        let scaled = (offset + 0.5 * std::f32::consts::PI.ln()).abs() < 1e-6;
        (squares && is_error && scaled).then(|| self.unary(Unary::GeluSlope, x))
    }

    fn softmax(&mut self, x: Source) -> Source {
        let largest = self.reduce(Reduce::Max, x);
        let below = self.binary(Binary::Sub, x, largest);
        let powers = self.unary(Unary::Exp, below);
        let sum = self.reduce(Reduce::Sum, powers);
        let share = self.unary(Unary::Reciprocal, sum);
        self.binary(Binary::Mul, powers, share)
    }

    /// The normalised value, and the mean and inverse deviation where the node returns them.
    fn layer_normalization(&mut self, node: &'a Node, x: Source) -> Option<()> {
        let gain = self.source(node.input(1)?);
        let bias = node.input(2).map(|bias| self.source(bias));
        let mean = self.reduce(Reduce::Mean, x);
        let centred = self.binary(Binary::Sub, x, mean);
        let square = self.binary(Binary::Mul, centred, centred);
        let variance = self.reduce(Reduce::Mean, square);
        let shifted = self.binary(Binary::Add, variance, Source::Number(node.float("epsilon").unwrap_or(1e-5)));
        let deviation = self.unary(Unary::Sqrt, shifted);
        let inverse = self.unary(Unary::Reciprocal, deviation);
        let normal = self.binary(Binary::Mul, centred, inverse);
        let mut y = self.binary(Binary::Mul, normal, gain);
        if let Some(bias) = bias {
            y = self.binary(Binary::Add, y, bias);
        }
        for (at, value) in [y, mean, inverse].into_iter().enumerate() {
            if let Some(output) = node.output(at) {
                self.made.insert(output, value);
            }
        }
        Some(())
    }

    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    fn tanh_gelu(&mut self, x: Source) -> Source {
        const K: f32 = 0.797_884_6;
        let square = self.binary(Binary::Mul, x, x);
        let cubic = self.binary(Binary::Mul, square, Source::Number(K * 0.044_715));
        let factor = self.binary(Binary::Add, cubic, Source::Number(K));
        let inner = self.binary(Binary::Mul, x, factor);
        let tanh = self.unary(Unary::Tanh, inner);
        let above = self.binary(Binary::Add, tanh, Source::Number(1.0));
        let half = self.binary(Binary::Mul, x, Source::Number(0.5));
        self.binary(Binary::Mul, half, above)
    }

    /// Where a value is found: made by a step, a number, or an input of the program.
    fn source(&mut self, value: &str) -> Source {
        if let Some(&source) = self.made.get(value) {
            return source;
        }
        if let Some(number) = self.graph.number(value) {
            return Source::Number(number);
        }
        let at = self.inputs.iter().position(|input| input == value).unwrap_or_else(|| {
            self.inputs.push(value.to_string());
            self.inputs.len() - 1
        });
        Source::Input(at)
    }

    fn push(&mut self, step: Step) -> Source {
        self.steps.push(step);
        Source::Step(self.steps.len() - 1)
    }

    fn unary(&mut self, op: Unary, x: Source) -> Source {
        self.push(Step::Unary(op, x))
    }

    fn binary(&mut self, op: Binary, a: Source, b: Source) -> Source {
        self.push(Step::Binary(op, a, b))
    }

    fn reduce(&mut self, op: Reduce, x: Source) -> Source {
        self.push(Step::Reduce(op, x))
    }
}
