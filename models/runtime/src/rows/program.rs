//! What a row program computes, and its text.

use std::fmt;
use std::str::FromStr;

use super::shape::Extent;

/// A value a step reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// One of the program's inputs.
    Input(usize),
    /// What an earlier step made.
    Step(usize),
    /// A number.
    Number(f32),
}

/// Declares the operators of one arity with their names in a program's text.
macro_rules! operators {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            fn text(self) -> &'static str {
                match self {
                    $($name::$variant => $text),+
                }
            }

            fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|op| op.text() == text)
            }
        }
    };
}

operators! {
    /// Operators on one value.
    Unary {
        /// -x
        Neg = "neg",
        /// |x|
        Abs = "abs",
        /// e^x
        Exp = "exp",
        /// The error function.
        Erf = "erf",
        /// x/2 (1 + erf(x / sqrt(2)))
        Gelu = "gelu",
        /// The derivative of [`Unary::Gelu`].
        GeluSlope = "gelu_slope",
        /// 1 where x is not a number, else 0.
        IsNan = "is_nan",
        /// 1 / x
        Reciprocal = "reciprocal",
        /// max(x, 0)
        Relu = "relu",
        /// 1 / (1 + e^-x)
        Sigmoid = "sigmoid",
        /// -1, 0 or 1.
        Sign = "sign",
        /// The square root.
        Sqrt = "sqrt",
        /// The hyperbolic tangent.
        Tanh = "tanh",
    }
}

operators! {
    /// Operators on two values.
    Binary {
        /// a + b
        Add = "add",
        /// a - b
        Sub = "sub",
        /// a b
        Mul = "mul",
        /// a / b
        Div = "div",
        /// The larger.
        Max = "max",
        /// The smaller.
        Min = "min",
    }
}

operators! {
    /// Operators on three values.
    Ternary {
        /// The second where the first is not 0, else the third.
        Where = "where",
    }
}

operators! {
    /// Reductions of a row to one value.
    Reduce {
        /// The sum.
        Sum = "sum",
        /// The sum over the width.
        Mean = "mean",
        /// The largest.
        Max = "row_max",
    }
}

/// One operator of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Of one value.
    Unary(Unary, Source),
    /// Of two.
    Binary(Binary, Source, Source),
    /// Of three.
    Ternary(Ternary, [Source; 3]),
    /// Of a row.
    Reduce(Reduce, Source),
}

impl Step {
    /// The same on other sources.
    fn reading(self, f: impl Fn(Source) -> Source) -> Self {
        match self {
            Step::Unary(op, a) => Step::Unary(op, f(a)),
            Step::Reduce(op, a) => Step::Reduce(op, f(a)),
            Step::Binary(op, a, b) => Step::Binary(op, f(a), f(b)),
            Step::Ternary(op, sources) => Step::Ternary(op, sources.map(f)),
        }
    }

    /// What it reads.
    pub fn sources(&self) -> Vec<Source> {
        match *self {
            Step::Unary(_, a) | Step::Reduce(_, a) => vec![a],
            Step::Binary(_, a, b) => vec![a, b],
            Step::Ternary(_, sources) => sources.to_vec(),
        }
    }
}

/// Steps in order, and which of their values are returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    inputs: usize,
    steps: Vec<Step>,
    outputs: Vec<usize>,
}

/// Why a text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// A step cannot be read.
    #[error("step {at} of the row program, `{text}`, is none")]
    Step {
        /// Its place.
        at: usize,
        /// Its text.
        text: String,
    },
    /// The parts are not inputs, steps and outputs.
    #[error("a row program is `inputs | steps | outputs`, not `{0}`")]
    Parts(String),
    /// A step or output refers to a value that is not made before it.
    #[error("the row program refers to a value before it is there: {0}")]
    Reference(String),
}

impl Program {
    /// A program of `inputs` inputs that returns what the steps `outputs` make.
    ///
    /// # Errors
    /// When a step or output refers to a value that is not made before it.
    pub fn new(inputs: usize, steps: Vec<Step>, outputs: Vec<usize>) -> Result<Self, ProgramError> {
        for (at, step) in steps.iter().enumerate() {
            let absent = |source: &Source| match *source {
                Source::Input(i) => i >= inputs,
                Source::Step(i) => i >= at,
                Source::Number(_) => false,
            };
            if step.sources().iter().any(absent) {
                return Err(ProgramError::Reference(step.to_string()));
            }
        }
        if let Some(&absent) = outputs.iter().find(|&&output| output >= steps.len()) {
            return Err(ProgramError::Reference(Source::Step(absent).to_string()));
        }
        Ok(Program { inputs, steps, outputs })
    }

    /// The same without steps that no output needs, and its inputs that are left, by their places.
    pub fn pruned(self) -> (Self, Vec<usize>) {
        let mut needed = vec![false; self.steps.len()];
        let mut read = vec![false; self.inputs];
        self.outputs.iter().for_each(|&output| needed[output] = true);
        for at in (0..self.steps.len()).rev() {
            let sources = if needed[at] { self.steps[at].sources() } else { Vec::new() };
            for source in sources {
                match source {
                    Source::Step(i) => needed[i] = true,
                    Source::Input(i) => read[i] = true,
                    Source::Number(_) => {}
                }
            }
        }
        let kept = |flags: &[bool]| (0..flags.len()).filter(|&i| flags[i]).collect::<Vec<usize>>();
        let (steps, inputs) = (kept(&needed), kept(&read));
        let place = |kept: &[usize], old: usize| kept.binary_search(&old).unwrap_or_default();
        let moved = |source: Source| match source {
            Source::Step(i) => Source::Step(place(&steps, i)),
            Source::Input(i) => Source::Input(place(&inputs, i)),
            Source::Number(_) => source,
        };
        let outputs = self.outputs.iter().map(|&output| place(&steps, output)).collect();
        let program = Program {
            inputs: inputs.len(),
            steps: steps.iter().map(|&at| self.steps[at].reading(moved)).collect(),
            outputs,
        };
        (program, inputs)
    }

    /// The extent of every step's value, given those of the inputs.
    pub fn extents(&self, inputs: &[Extent]) -> Vec<Extent> {
        let mut found: Vec<Extent> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let of = |source: &Source| match *source {
                Source::Input(i) => inputs[i],
                Source::Step(i) => found[i],
                Source::Number(_) => Extent::One,
            };
            let reduces = matches!(step, Step::Reduce(..));
            let row = !reduces && step.sources().iter().map(of).any(|extent| extent == Extent::Row);
            found.push(if row { Extent::Row } else { Extent::One });
        }
        found
    }

    /// How many inputs it reads.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Its steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The steps whose values it returns, in order.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Input(i) => write!(f, "x{i}"),
            Source::Step(i) => write!(f, "s{i}"),
            Source::Number(number) => write!(f, "{number:?}"),
        }
    }
}

impl FromStr for Source {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let index = |digits: &str| digits.parse().map_err(|_| ());
        match (text.strip_prefix('x'), text.strip_prefix('s')) {
            (Some(digits), _) => index(digits).map(Source::Input),
            (_, Some(digits)) => index(digits).map(Source::Step),
            _ => text.parse().map(Source::Number).map_err(|_| ()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self {
            Step::Unary(op, _) => op.text(),
            Step::Binary(op, ..) => op.text(),
            Step::Ternary(op, _) => op.text(),
            Step::Reduce(op, _) => op.text(),
        };
        f.write_str(op)?;
        self.sources().iter().try_for_each(|source| write!(f, " {source}"))
    }
}

impl FromStr for Step {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace();
        let op = words.next().ok_or(())?;
        let sources = words.map(str::parse).collect::<Result<Vec<Source>, ()>>()?;
        match sources[..] {
            [a] => Unary::named(op).map(|op| Step::Unary(op, a)).or(Reduce::named(op).map(|op| Step::Reduce(op, a))),
            [a, b] => Binary::named(op).map(|op| Step::Binary(op, a, b)),
            [a, b, c] => Ternary::named(op).map(|op| Step::Ternary(op, [a, b, c])),
            _ => None,
        }
        .ok_or(())
    }
}

/// `3 | mul x0 x1; add s0 0.5; sum s1 | s1 s2`: the number of inputs, the steps, the steps returned.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} |", self.inputs)?;
        for (at, step) in self.steps.iter().enumerate() {
            write!(f, "{} {step}", if at == 0 { "" } else { ";" })?;
        }
        f.write_str(" |")?;
        self.outputs.iter().try_for_each(|&output| write!(f, " {}", Source::Step(output)))
    }
}

impl FromStr for Program {
    type Err = ProgramError;

    fn from_str(text: &str) -> Result<Self, ProgramError> {
        let malformed = || ProgramError::Parts(text.chars().take(80).collect());
        let [inputs, steps, outputs] = text.split('|').collect::<Vec<_>>()[..] else { return Err(malformed()) };
        let inputs = inputs.trim().parse().map_err(|_| malformed())?;
        let step = |(at, text): (usize, &str)| {
            text.parse().map_err(|()| ProgramError::Step { at, text: text.trim().to_string() })
        };
        let steps = steps.split(';').enumerate().map(step).collect::<Result<_, _>>()?;
        let output = |word: &str| match word.parse() {
            Ok(Source::Step(at)) => Ok(at),
            _ => Err(malformed()),
        };
        Program::new(inputs, steps, outputs.split_whitespace().map(output).collect::<Result<_, _>>()?)
    }
}
