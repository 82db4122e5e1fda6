//! A tensor's bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::buffer::buffer;

/// Bytes of a tensor, which those of its message share: cheap to clone, and not copied when a message is read.
#[derive(Clone, Default)]
pub struct Data {
    whole: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Data {
    /// Part of these bytes; none where the range goes beyond them.
    pub fn part(&self, range: Range<usize>) -> Option<Data> {
        let start = self.range.start;
        let within = range.start <= range.end && range.end <= self.len();
        within.then(|| Data { whole: self.whole.clone(), range: start + range.start..start + range.end })
    }

    /// The bytes of several, one after the other: copied, unless they lie so.
    pub fn together<'a>(parts: &[&'a Data]) -> Cow<'a, [u8]> {
        let adjacent = |a: &Data, b: &Data| Arc::ptr_eq(&a.whole, &b.whole) && a.range.end == b.range.start;
        match (parts.first(), parts.last()) {
            (Some(first), Some(last)) if parts.windows(2).all(|two| adjacent(two[0], two[1])) => {
                Cow::Borrowed(&first.whole[first.range.start..last.range.end])
            }
            _ => {
                let mut all = buffer(parts.iter().map(|part| part.len()).sum());
                parts.iter().for_each(|part| all.extend_from_slice(part));
                Cow::Owned(all)
            }
        }
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Data { range: 0..bytes.len(), whole: Arc::new(bytes) }
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.whole[self.range.clone()]
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_parts_are_within_them() {
        let whole = Data::from(vec![1, 2, 3, 4, 5]);
        let part = whole.part(1..4).unwrap();
        assert_eq!(*part, [2, 3, 4]);
        assert_eq!(*part.part(1..3).unwrap(), [3, 4]);
        assert!(part.part(3..3).unwrap().is_empty());
        assert_eq!(part.part(1..4), None);
        assert_eq!(part.part(usize::MAX..usize::MAX), None);
    }

    #[test]
    fn what_lies_together_is_not_copied() {
        let whole = Data::from(vec![1, 2, 3]);
        let [a, b, c] = [0..1, 1..2, 2..3].map(|range| whole.part(range).unwrap());
        assert!(matches!(Data::together(&[&a, &b, &c]), Cow::Borrowed([1, 2, 3])));
        assert!(matches!(Data::together(&[&a, &c]), Cow::Owned(both) if both == [1, 3]));
        assert!(matches!(Data::together(&[&a, &Data::from(vec![2])]), Cow::Owned(both) if both == [1, 2]));
        assert!(Data::together(&[]).is_empty());
    }
}
