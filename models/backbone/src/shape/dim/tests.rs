#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Dim, known_different};

fn sym(name: &str) -> Dim {
    Dim::symbol(name)
}

fn n(value: i64) -> Dim {
    Dim::known(value)
}

/// What a random expression is made of; evaluated both as a polynomial and directly.
#[derive(Clone, Debug)]
enum Expr {
    Number(i64),
    Symbol(usize),
    Op(char, Box<Expr>, Box<Expr>),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Expr {
    fn dim(&self) -> Dim {
        match self {
            Expr::Number(value) => n(*value),
            Expr::Symbol(i) => sym(NAMES[*i]),
            Expr::Op(op, a, b) => {
                let (a, b) = (a.dim(), b.dim());
                match op {
                    '+' => &a + &b,
                    '-' => &a - &b,
                    '*' => &a * &b,
                    '/' => a.floor_div(&positive(&b)),
                    'c' => a.ceil_div(&positive(&b)),
                    't' => a.trunc_div(&positive(&b)),
                    'm' => a.min(&b),
                    'M' => a.max(&b),
                    '=' => a.equal(&b),
                    '<' => a.less(&b),
                    _ => a.less(&b).select(&a, &b),
                }
            }
        }
    }

    fn value(&self, at: &[i64; 3]) -> i64 {
        match self {
            Expr::Number(value) => *value,
            Expr::Symbol(i) => at[*i],
            Expr::Op(op, a, b) => {
                let (a, b) = (a.value(at), b.value(at));
                let divisor = b * b + 1;
                match op {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    '/' => a.div_euclid(divisor),
                    'c' => -(-a).div_euclid(divisor),
                    't' => a / divisor,
                    'm' => a.min(b),
                    'M' => a.max(b),
                    '=' => i64::from(a == b),
                    '<' => i64::from(a < b),
                    _ => a.min(b),
                }
            }
        }
    }
}

/// b^2 + 1, which is never 0.
fn positive(b: &Dim) -> Dim {
    &(b * b) + &n(1)
}

fn expr(ops: &'static str) -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![(-4i64..5).prop_map(Expr::Number), (0usize..3).prop_map(Expr::Symbol)];
    leaf.prop_recursive(3, 12, 2, move |inner| {
        let op = proptest::sample::select(ops.chars().collect::<Vec<_>>());
        (op, inner.clone(), inner).prop_map(|(op, a, b)| Expr::Op(op, Box::new(a), Box::new(b)))
    })
}

fn binding(at: &[i64; 3]) -> HashMap<String, i64> {
    NAMES.iter().zip(at).map(|(name, value)| (name.to_string(), *value)).collect()
}

proptest! {
    #[test]
    fn polynomials_evaluate_as_the_arithmetic_they_stand_for(e in expr("+-*"), at in [1i64..9, 1..9, 1..9]) {
        prop_assert_eq!(e.dim().eval(&binding(&at)), Some(e.value(&at)));
    }

    #[test]
    fn rounding_and_choice_evaluate_as_on_numbers(e in expr("+-*/ctmM=<s"), at in [1i64..9, 1..9, 1..9]) {
        // An expression grown too large to keep has no value; none has a wrong one.
        if let Some(value) = e.dim().eval(&binding(&at)) {
            prop_assert_eq!(value, e.value(&at));
        }
    }

    #[test]
    fn bounds_hold(e in expr("+-*/mM=<"), at in [1i64..9, 1..9, 1..9]) {
        if let Some(low) = e.dim().lower_bound() {
            prop_assert!(low <= e.value(&at), "{} is {} at {:?}", e.dim(), e.value(&at), at);
        }
    }

    #[test]
    fn equality_is_that_of_polynomials(a in expr("+-*"), b in expr("+-*"), c in expr("+-*")) {
        let (a, b, c) = (a.dim(), b.dim(), c.dim());
        prop_assert_eq!(&(&a + &b) * &c, &(&c * &b) + &(&a * &c));
        prop_assert_eq!(&(&a - &b) * &(&a + &b), &(&a * &a) - &(&b * &b));
        prop_assert_eq!(&a - &a, n(0));
    }

    #[test]
    fn a_product_divides_by_its_factors(a in expr("+-*"), b in expr("+-*")) {
        let (a, b) = (a.dim(), b.dim());
        prop_assume!(b != n(0));
        prop_assert_eq!((&a * &b).div_exact(&b), Some(a));
    }

    #[test]
    fn known_different_is_right(a in expr("+-*mM"), b in expr("+-*mM"), at in [1i64..9, 1..9, 1..9]) {
        if known_different(&a.dim(), &b.dim()) {
            prop_assert_ne!(a.value(&at), b.value(&at));
        }
    }
}

#[test]
fn heads_divide_out() {
    let (batch, sequence) = (sym("batch"), sym("sequence"));
    let total = Dim::product([&batch, &sequence, &n(32)]);
    assert_eq!(total.div_exact(&Dim::product([&batch, &sequence])), Some(n(32)));
    assert_eq!(total.div_exact(&n(5)), None);
    assert_eq!(total.div_exact(&n(0)), None);
    assert_eq!((&batch * &batch).div_exact(&(&batch + &n(1))), None);
}

#[test]
fn signs_are_decided_by_positivity() {
    let s = sym("sequence");
    assert!(known_different(&s, &n(0)) && known_different(&s, &n(-1)));
    assert!(!known_different(&s, &n(1)) && !known_different(&Dim::unknown("u"), &n(0)));
    assert!(known_different(&(&s + &s), &n(1)) && known_different(&(&s + &n(3)), &n(2)));
    // (a - 1) * b is never negative for positive a and b, though a coefficient is.
    assert!((&(&s - &n(1)) * &sym("batch")).at_least(0));
    assert!(!(&s - &n(2)).at_least(0));
}

#[test]
fn floors_keep_a_canonical_form() {
    let s = sym("s");
    let half = |dim: &Dim| dim.floor_div(&n(2));
    assert_eq!(half(&(&(&s * &n(4)) + &n(1))), &s * &n(2));
    assert_eq!(half(&(&s + &n(2))), &half(&s) + &n(1));
    assert_eq!(half(&s).to_string(), "floor((s)/(2))");
    assert!(half(&s).at_least(0) && s.ceil_div(&n(2)).at_least(0));
    assert_eq!(s.floor_div(&(&s + &n(1))), n(0));
}

#[test]
fn broadcasting_decides_what_validity_implies() {
    let (s, k) = (sym("s"), sym("k"));
    assert_eq!(s.broadcast(&n(1)), s);
    assert_eq!(n(1).broadcast(&s), s);
    assert_eq!(s.broadcast(&n(8)), n(8));
    // A table cut to the length: shorter only if the length is 1 anyway.
    assert_eq!(s.min(&n(64)).broadcast(&s), s);
    assert_eq!(s.broadcast(&k), k.broadcast(&s));
    assert_eq!(s.broadcast(&k).broadcast(&s), s.broadcast(&k));
    assert_eq!(s.broadcast(&k).broadcast(&n(8)), n(8));
    let at = HashMap::from([("s".to_string(), 1), ("k".to_string(), 7)]);
    assert_eq!(s.broadcast(&k).eval(&at), Some(7));
}

#[test]
fn it_prints_as_written() {
    let (b, s) = (sym("batch"), sym("sequence"));
    assert_eq!((&(&(&b * &s) * &n(32)) - &n(1)).to_string(), "32*batch*sequence - 1");
    assert_eq!((&n(2) - &(&s * &s)).to_string(), "-sequence^2 + 2");
    assert_eq!(n(0).to_string(), "0");
    assert_eq!(s.min(&n(4)).symbols(), ["sequence"]);
}

#[test]
fn nothing_overflows_or_grows_without_end() {
    let max = n(i64::MAX);
    assert_eq!((&max + &n(1)).as_known(), None);
    assert_eq!(&max + &n(1), &max + &n(1));
    assert_eq!((&n(i64::MIN) - &n(1)).lower_bound(), None);
    assert_eq!((-&n(i64::MIN)).as_known(), None);
    assert_eq!(n(i64::MIN).trunc_div(&n(-1)).as_known(), None);
    assert_eq!(n(i64::MIN).floor_div(&n(-1)).as_known(), None);
    let mut grown = &sym("a") + &sym("b");
    for i in 0..200 {
        grown = &(&grown * &grown) + &sym(&format!("s{i}"));
        grown = grown.min(&sym(&format!("t{i}")));
        assert!(grown.size() <= 512, "{}", grown.size());
    }
}
