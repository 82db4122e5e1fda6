//! What a polynomial is made over: named symbols, and integer functions no polynomial can express.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Dim;

/// An integer function of dimensions that does not reduce to a polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Op {
    /// `floor(a / b)`.
    Floor,
    /// `a / b` rounded towards zero.
    Trunc,
    Min,
    Max,
    /// The size that several sizes broadcast to: the one that is not 1.
    Broadcast,
    /// 1 if `a = b`, else 0.
    Equal,
    /// 1 if `a < b`, else 0.
    Less,
    /// `b` if `a` is not 0, else `c`.
    Select,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Symbol(String),
    Op(Op, Vec<Dim>),
}

/// An indeterminate, with the least value it can take where one is known.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Atom(Arc<Inner>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Inner {
    kind: Kind,
    low: Option<i64>,
    size: usize,
}

/// Expressions larger than this are replaced by a symbol named after their hash, so that comparing stays cheap.
const MAX_SIZE: usize = 256;

impl Atom {
    pub(super) fn symbol(name: &str, low: Option<i64>) -> Self {
        Atom(Arc::new(Inner { kind: Kind::Symbol(name.to_string()), low, size: 1 }))
    }

    /// A symbol that stands for an expression too large to keep; the same expression gives the same symbol.
    pub(super) fn digest(what: &str, parts: &[&Dim]) -> Self {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, what, parts).hash(&mut hasher);
            hasher.finish()
        };
        Atom::symbol(&format!("{what}#{:016x}{:016x}", half(0), half(1)), None)
    }

    pub(super) fn op(op: Op, args: Vec<Dim>) -> Self {
        let size = 1 + args.iter().map(Dim::size).sum::<usize>();
        if size > MAX_SIZE {
            return Atom::digest(op.name(), &args.iter().collect::<Vec<_>>());
        }
        let low = op.lower_bound(&args);
        Atom(Arc::new(Inner { kind: Kind::Op(op, args), low, size }))
    }

    pub(super) fn low(&self) -> Option<i64> {
        self.0.low
    }

    pub(super) fn size(&self) -> usize {
        self.0.size
    }

    /// The arguments, if this is an application of `op`.
    pub(super) fn args(&self, op: Op) -> Option<&[Dim]> {
        match &self.0.kind {
            Kind::Op(own, args) if *own == op => Some(args),
            _ => None,
        }
    }

    /// Calls `visit` with the name of every symbol inside.
    pub(super) fn symbols<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        match &self.0.kind {
            Kind::Symbol(name) => visit(name),
            Kind::Op(_, args) => args.iter().for_each(|arg| arg.visit_symbols(visit)),
        }
    }

    /// The same with numbers put for symbols.
    pub(super) fn bind(&self, numbers: &HashMap<String, i64>) -> Dim {
        match &self.0.kind {
            Kind::Symbol(name) => match numbers.get(name) {
                Some(&value) => Dim::known(value),
                None => Dim::of_atom(self.clone()),
            },
            Kind::Op(op, args) => {
                let args: Vec<Dim> = args.iter().map(|arg| arg.bind(numbers)).collect();
                match (op, args.as_slice()) {
                    (Op::Floor, [a, b]) => a.floor_div(b),
                    (Op::Trunc, [a, b]) => a.trunc_div(b),
                    (Op::Min, [a, b]) => a.min(b),
                    (Op::Max, [a, b]) => a.max(b),
                    (Op::Broadcast, sizes) => sizes.iter().fold(Dim::known(1), |size, next| size.broadcast(next)),
                    (Op::Equal, [a, b]) => a.equal(b),
                    (Op::Less, [a, b]) => a.less(b),
                    (Op::Select, [a, b, c]) => a.select(b, c),
                    _ => Dim::of_atom(self.clone()),
                }
            }
        }
    }
}

/// An order for the canonical form alone; it says nothing of sizes, and so is not one of [`Dim`] itself.
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Kind::Symbol(a), Kind::Symbol(b)) => a.cmp(b),
            (Kind::Symbol(_), Kind::Op(..)) => Ordering::Less,
            (Kind::Op(..), Kind::Symbol(_)) => Ordering::Greater,
            (Kind::Op(a, x), Kind::Op(b, y)) => {
                a.cmp(b).then_with(|| x.iter().map(|arg| &arg.terms).cmp(y.iter().map(|arg| &arg.terms)))
            }
        }
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Floor => "floor",
            Op::Trunc => "trunc",
            Op::Min => "min",
            Op::Max => "max",
            Op::Broadcast => "broadcast",
            Op::Equal => "equal",
            Op::Less => "less",
            Op::Select => "select",
        }
    }

    fn lower_bound(self, args: &[Dim]) -> Option<i64> {
        let lows: Vec<Option<i64>> = args.iter().map(Dim::lower_bound).collect();
        match (self, lows.as_slice()) {
            (Op::Floor | Op::Trunc, [Some(a), Some(b)]) if *a >= 0 && *b >= 1 => Some(0),
            (Op::Min, [Some(a), Some(b)]) => Some(*a.min(b)),
            (Op::Broadcast, lows) => lows.iter().copied().min().flatten(),
            (Op::Max, [a, b]) => a.max(b).to_owned(),
            (Op::Equal | Op::Less, _) => Some(0),
            (Op::Select, [_, Some(b), Some(c)]) => Some(*b.min(c)),
            _ => None,
        }
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Symbol(name) => f.write_str(name),
            Kind::Op(op @ (Op::Floor | Op::Trunc), args) => {
                let [a, b] = args.as_slice() else { return Ok(()) };
                write!(f, "{}(({a})/({b}))", op.name())
            }
            Kind::Op(op, args) => {
                write!(f, "{}(", op.name())?;
                for (i, arg) in args.iter().enumerate() {
                    write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
        }
    }
}
