//! Dimensions as polynomials over symbols.

/// A dimension, or an element of a shape computation: a polynomial with integer coefficients over named symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    known: Option<i64>,
    symbol: String,
}

impl Dim {
    /// A number.
    pub fn known(value: i64) -> Self {
        Dim { known: Some(value), symbol: String::new() }
    }

    /// A named positive size.
    pub fn symbol(name: &str) -> Self {
        Dim { known: None, symbol: name.to_string() }
    }

    /// The number, if it is one.
    pub fn as_known(&self) -> Option<i64> {
        self.known
    }
}
