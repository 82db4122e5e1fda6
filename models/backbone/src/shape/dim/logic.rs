//! Comparison, choice and the functions built on them: decided where the bounds of symbols allow, opaque otherwise.

use super::Dim;
use super::atom::{Atom, Op};

/// Whether the two are known to differ for every value of their symbols.
pub fn known_different(a: &Dim, b: &Dim) -> bool {
    let (up, down) = (a - b, b - a);
    up.is_positive() || down.is_positive()
}

impl Dim {
    /// Whether it is known to be at most `other`.
    pub fn at_most(&self, other: &Dim) -> bool {
        let plainly = |a: &Dim, b: &Dim| a == b || (b - a).at_least(0);
        let min_of = self.as_atom().and_then(|atom| atom.args(Op::Min));
        let max_of = other.as_atom().and_then(|atom| atom.args(Op::Max));
        plainly(self, other)
            || min_of.is_some_and(|args| args.iter().any(|arg| plainly(arg, other)))
            || max_of.is_some_and(|args| args.iter().any(|arg| plainly(self, arg)))
    }

    /// The smaller of the two.
    pub fn min(&self, other: &Dim) -> Dim {
        if self.at_most(other) {
            self.clone()
        } else if other.at_most(self) {
            other.clone()
        } else {
            self.commutative(Op::Min, other)
        }
    }

    /// The larger of the two.
    pub fn max(&self, other: &Dim) -> Dim {
        if self.at_most(other) {
            other.clone()
        } else if other.at_most(self) {
            self.clone()
        } else {
            self.commutative(Op::Max, other)
        }
    }

    /// The size that two sizes broadcast to, given that they do.
    pub fn broadcast(&self, other: &Dim) -> Dim {
        let mut sizes: Vec<Dim> = Vec::new();
        for size in self.broadcast_parts().into_iter().chain(other.broadcast_parts()) {
            if size.as_known() == Some(1) || sizes.iter().any(|kept| implies(kept, size)) {
                continue;
            }
            sizes.retain(|kept| !implies(size, kept));
            sizes.push(size.clone());
        }
        sizes.sort_by(|a, b| a.terms.cmp(&b.terms));
        match sizes.len() {
            0 => Dim::known(1),
            1 => sizes.swap_remove(0),
            _ => Dim::of_atom(Atom::op(Op::Broadcast, sizes)),
        }
    }

    fn broadcast_parts(&self) -> Vec<&Dim> {
        match self.as_atom().and_then(|atom| atom.args(Op::Broadcast)) {
            Some(parts) => parts.iter().collect(),
            None => vec![self],
        }
    }

    /// `self / divisor` rounded towards zero, as ONNX divides integers.
    pub fn trunc_div(&self, divisor: &Dim) -> Dim {
        let numbers = self.as_known().zip(divisor.as_known());
        if let Some(quotient) = numbers.and_then(|(a, b)| a.checked_div(b)) {
            return Dim::known(quotient);
        }
        match self.div_exact(divisor) {
            Some(quotient) => quotient,
            None if self.at_least(0) && divisor.is_positive() => self.floor_div(divisor),
            None => Dim::of_atom(Atom::op(Op::Trunc, vec![self.clone(), divisor.clone()])),
        }
    }

    /// 1 if the two are equal, else 0.
    pub fn equal(&self, other: &Dim) -> Dim {
        if self == other {
            Dim::known(1)
        } else if known_different(self, other) {
            Dim::known(0)
        } else {
            self.commutative(Op::Equal, other)
        }
    }

    /// 1 if this is less than `other`, else 0.
    pub fn less(&self, other: &Dim) -> Dim {
        if (other - self).is_positive() {
            Dim::known(1)
        } else if other.at_most(self) {
            Dim::known(0)
        } else {
            Dim::of_atom(Atom::op(Op::Less, vec![self.clone(), other.clone()]))
        }
    }

    /// `yes` if this is not 0, else `no`.
    pub fn select(&self, yes: &Dim, no: &Dim) -> Dim {
        if yes == no || known_different(self, &Dim::known(0)) {
            yes.clone()
        } else if self.as_known() == Some(0) {
            no.clone()
        } else {
            Dim::of_atom(Atom::op(Op::Select, vec![self.clone(), yes.clone(), no.clone()]))
        }
    }

    fn commutative(&self, op: Op, other: &Dim) -> Dim {
        let mut args = vec![self.clone(), other.clone()];
        args.sort_by(|a, b| a.terms.cmp(&b.terms));
        Dim::of_atom(Atom::op(op, args))
    }
}

/// Whether `a` is the size that `a` and `b` broadcast to: a number other than 1 and a size of 2 or more are, and the
/// larger of two positive sizes.
fn implies(a: &Dim, b: &Dim) -> bool {
    a == b || a.as_known().is_some_and(|a| a != 1) || a.at_least(2) || (b.is_positive() && b.at_most(a))
}
