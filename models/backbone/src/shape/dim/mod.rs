//! Dimensions as polynomials over symbols.

mod atom;
mod logic;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};

use atom::Atom;
pub use logic::known_different;

/// A product of powers of atoms, atoms ascending.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Monomial(Vec<(Atom, u32)>);

/// A dimension, or an element of a shape computation: a polynomial with integer coefficients over named symbols.
///
/// Kept in canonical form: `==` holds exactly if the two polynomials are the same. What no polynomial can express
/// (a rounded quotient, a minimum that cannot be decided) becomes an opaque symbol named by its expression, so equal
/// expressions stay equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Dim {
    /// Terms in descending order of monomials; no coefficient is 0.
    terms: Vec<(Monomial, i64)>,
}

/// A polynomial of more terms, or of a higher degree, is replaced by an opaque symbol.
const MAX_TERMS: usize = 64;
const MAX_DEGREE: u32 = 16;

impl Monomial {
    fn degree(&self) -> u32 {
        self.0.iter().map(|(_, power)| power).sum()
    }

    fn times(&self, other: &Monomial) -> Monomial {
        if self.0.is_empty() {
            return other.clone();
        }
        let mut powers: BTreeMap<&Atom, u32> = self.0.iter().map(|(atom, power)| (atom, *power)).collect();
        for (atom, power) in &other.0 {
            *powers.entry(atom).or_default() += power;
        }
        Monomial(powers.into_iter().map(|(atom, power)| (atom.clone(), power)).collect())
    }

    fn over(&self, divisor: &Monomial) -> Option<Monomial> {
        let mut powers: BTreeMap<&Atom, u32> = self.0.iter().map(|(atom, power)| (atom, *power)).collect();
        for (atom, power) in &divisor.0 {
            let own = powers.get_mut(atom)?;
            *own = own.checked_sub(*power)?;
        }
        Some(Monomial(powers.into_iter().filter(|(_, p)| *p > 0).map(|(a, p)| (a.clone(), p)).collect()))
    }
}

/// Lexicographic order, under which exact division by leading terms works.
impl Ord for Monomial {
    fn cmp(&self, other: &Self) -> Ordering {
        for ((a, p), (b, q)) in self.0.iter().zip(&other.0) {
            match b.cmp(a).then(p.cmp(q)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        self.0.len().cmp(&other.0.len())
    }
}

impl PartialOrd for Monomial {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Dim {
    /// A number.
    pub fn known(value: i64) -> Self {
        Dim { terms: if value == 0 { Vec::new() } else { vec![(Monomial::default(), value)] } }
    }

    /// A named positive size.
    pub fn symbol(name: &str) -> Self {
        Dim::of_atom(Atom::symbol(name, Some(1)))
    }

    /// A named size that may be 0: a dimension of which nothing else is known.
    pub fn unknown(name: &str) -> Self {
        Dim::of_atom(Atom::symbol(name, Some(0)))
    }

    fn of_atom(atom: Atom) -> Self {
        Dim { terms: vec![(Monomial(vec![(atom, 1)]), 1)] }
    }

    /// The polynomial of these terms; an opaque symbol if it is too large.
    fn of_terms(terms: BTreeMap<Monomial, i64>) -> Self {
        let dim = Dim { terms: terms.into_iter().rev().filter(|(_, factor)| *factor != 0).collect() };
        let large = dim.terms.len() > MAX_TERMS || dim.terms.iter().any(|(m, _)| m.degree() > MAX_DEGREE);
        if large { Dim::of_atom(Atom::digest("polynomial", &[&dim])) } else { dim }
    }

    /// The number, if it is one.
    pub fn as_known(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(monomial, value)] if monomial.0.is_empty() => Some(*value),
            _ => None,
        }
    }

    /// The atom, if it is nothing but one.
    fn as_atom(&self) -> Option<&Atom> {
        match self.terms.as_slice() {
            [(Monomial(powers), 1)] => match powers.as_slice() {
                [(atom, 1)] => Some(atom),
                _ => None,
            },
            _ => None,
        }
    }

    fn size(&self) -> usize {
        self.terms.iter().map(|(m, _)| 1 + m.0.iter().map(|(atom, _)| atom.size()).sum::<usize>()).sum()
    }

    fn checked_add_scaled(&self, other: &Dim, by: i64) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_known(), other.as_known()) {
            return Some(Dim::known(a.checked_add(b.checked_mul(by)?)?));
        }
        let mut terms: BTreeMap<Monomial, i64> = self.terms.iter().cloned().collect();
        for (monomial, factor) in &other.terms {
            let sum = terms.entry(monomial.clone()).or_default();
            *sum = sum.checked_add(factor.checked_mul(by)?)?;
        }
        Some(Dim::of_terms(terms))
    }

    fn checked_mul(&self, other: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_known(), other.as_known()) {
            return a.checked_mul(b).map(Dim::known);
        }
        let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, a) in &self.terms {
            for (n, b) in &other.terms {
                let sum = terms.entry(m.times(n)).or_default();
                *sum = sum.checked_add(a.checked_mul(*b)?)?;
            }
        }
        Some(Dim::of_terms(terms))
    }

    /// The product of several; 1 of none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::known(1), |product, dim| &product * dim)
    }

    /// `self / divisor` if that is a polynomial with integer coefficients (and `divisor` is not 0).
    pub fn div_exact(&self, divisor: &Dim) -> Option<Dim> {
        let (lead, lead_factor) = divisor.terms.first()?;
        let mut rest = self.clone();
        let mut quotient = BTreeMap::new();
        while let Some((monomial, factor)) = rest.terms.first() {
            if quotient.len() > MAX_TERMS || factor.checked_rem(*lead_factor)? != 0 {
                return None;
            }
            let step = (monomial.over(lead)?, factor.checked_div(*lead_factor)?);
            let taken = Dim { terms: vec![step.clone()] }.checked_mul(divisor)?;
            rest = rest.checked_add_scaled(&taken, -1)?;
            quotient.insert(step.0, step.1);
        }
        Some(Dim::of_terms(quotient))
    }

    /// `floor(self / divisor)`, for a divisor that is not 0.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if let Some(quotient) = self.div_exact(divisor) {
            return quotient;
        }
        match divisor.as_known() {
            Some(by) if by > 0 => {
                let part = |f: fn(i64, i64) -> i64| {
                    Dim::of_terms(self.terms.iter().map(|(m, factor)| (m.clone(), f(*factor, by))).collect())
                };
                let (quotient, rest) = (part(i64::div_euclid), part(i64::rem_euclid));
                // 0 <= rest < by for a number.
                if rest.as_known().is_some() { quotient } else { &quotient + &rest.opaque_floor(divisor) }
            }
            Some(by) if by < 0 => (-self).floor_div(&-divisor),
            Some(_) => self.opaque_floor(divisor),
            None if self.at_least(0) && self.less(divisor).as_known() == Some(1) => Dim::known(0),
            None => self.opaque_floor(divisor),
        }
    }

    fn opaque_floor(&self, divisor: &Dim) -> Dim {
        Dim::of_atom(Atom::op(atom::Op::Floor, vec![self.clone(), divisor.clone()]))
    }

    /// `ceil(self / divisor)`, for a divisor that is not 0.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        if divisor.is_positive() {
            (&(self + divisor) - &Dim::known(1)).floor_div(divisor)
        } else {
            -&(-self).floor_div(divisor)
        }
    }

    /// The greatest number known to be at most this, if every symbol is at least its own lower bound.
    pub fn lower_bound(&self) -> Option<i64> {
        // Put low + s for every symbol; the constant term bounds a polynomial none of whose other factors is negative.
        let mut shifted: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (monomial, factor) in &self.terms {
            let mut parts = vec![(Monomial::default(), *factor)];
            for (atom, power) in &monomial.0 {
                let low = atom.low()?;
                let single = Monomial(vec![(atom.clone(), 1)]);
                for _ in 0..*power {
                    let mut next = Vec::with_capacity(2 * parts.len());
                    for (m, f) in parts {
                        if low != 0 {
                            next.push((m.clone(), f.checked_mul(low)?));
                        }
                        next.push((m.times(&single), f));
                    }
                    parts = next;
                }
                if parts.len() > MAX_TERMS {
                    return None;
                }
            }
            for (m, f) in parts {
                let sum = shifted.entry(m).or_default();
                *sum = sum.checked_add(f)?;
            }
        }
        let constant = shifted.remove(&Monomial::default()).unwrap_or(0);
        shifted.values().all(|factor| *factor >= 0).then_some(constant)
    }

    /// Whether it is known to be at least `bound`.
    pub fn at_least(&self, bound: i64) -> bool {
        self.lower_bound().is_some_and(|low| low >= bound)
    }

    /// Whether it is known to be at least 1.
    pub fn is_positive(&self) -> bool {
        self.at_least(1)
    }

    /// The same with numbers put for symbols.
    pub fn bind(&self, numbers: &HashMap<String, i64>) -> Dim {
        if self.as_known().is_some() {
            return self.clone();
        }
        self.terms.iter().fold(Dim::known(0), |sum, (monomial, factor)| {
            let term = monomial.0.iter().fold(Dim::known(*factor), |product, (atom, power)| {
                let value = atom.bind(numbers);
                (0..*power).fold(product, |product, _| &product * &value)
            });
            &sum + &term
        })
    }

    /// Its value where every symbol it needs is given and nothing overflows.
    pub fn eval(&self, numbers: &HashMap<String, i64>) -> Option<i64> {
        self.bind(numbers).as_known()
    }

    /// Names of the symbols it depends on, in order of appearance, without repetition.
    pub fn symbols(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit_symbols(&mut |name| {
            if !names.contains(&name) {
                names.push(name);
            }
        });
        names
    }

    fn visit_symbols<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        self.terms.iter().flat_map(|(m, _)| &m.0).for_each(|(atom, _)| atom.symbols(visit));
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim::known(value)
    }
}

impl Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        self.checked_add_scaled(other, 1).unwrap_or_else(|| Dim::of_atom(Atom::digest("sum", &[self, other])))
    }
}

impl Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        self.checked_add_scaled(other, -1).unwrap_or_else(|| Dim::of_atom(Atom::digest("difference", &[self, other])))
    }
}

impl Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        self.checked_mul(other).unwrap_or_else(|| Dim::of_atom(Atom::digest("product", &[self, other])))
    }
}

impl Neg for &Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        &Dim::known(0) - self
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, (monomial, factor)) in self.terms.iter().enumerate() {
            match (i, *factor < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let mut times = "";
            if monomial.0.is_empty() || factor.unsigned_abs() != 1 {
                write!(f, "{}", factor.unsigned_abs())?;
                times = "*";
            }
            for (atom, power) in &monomial.0 {
                write!(f, "{times}{atom}")?;
                if *power > 1 {
                    write!(f, "^{power}")?;
                }
                times = "*";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
