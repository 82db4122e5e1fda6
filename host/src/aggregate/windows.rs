//! Parameters in windows: as many as are aggregated at a time.

use std::collections::BTreeMap;
use std::ops::Range;

use fedtt_tt::Parameter;

/// Values of a window, as long as a layer, which stays together, has no more.
pub(super) const VALUES: usize = 1 << 20;

/// All parameters, in windows of at most `values` values; those of one layer are in one window.
pub(super) fn windows(parameters: &[Parameter], values: usize) -> Vec<Range<usize>> {
    let last: BTreeMap<&str, usize> = parameters.iter().enumerate().map(|(i, p)| (p.layer.as_str(), i)).collect();
    let mut windows: Vec<Range<usize>> = Vec::new();
    let (mut begin, mut end, mut held) = (0, 0, 0);
    for (i, parameter) in parameters.iter().enumerate() {
        end = last.get(parameter.layer.as_str()).copied().unwrap_or(i).max(end);
        if i < end {
            continue;
        }
        // Up to here nothing belongs together with what follows.
        let size: usize = parameters[begin..=i].iter().map(Parameter::len).sum();
        match windows.last_mut() {
            Some(window) if held + size <= values => {
                window.end = i + 1;
                held += size;
            }
            _ => {
                windows.push(begin..i + 1);
                held = size;
            }
        }
        begin = i + 1;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::tests::parameter;
    use fedtt_tt::Role;

    #[test]
    fn layers_stay_together_and_windows_hold_what_they_may() {
        let of = |layer: &str, length| parameter(layer, "0", &[length], Role::Factor);
        let parameters = [of("a", 3), of("a", 3), of("b", 1), of("c", 9), of("d", 1), of("e", 1), of("d", 1)];
        assert_eq!(windows(&parameters, 7), [0..3, 3..4, 4..7]);
        assert_eq!(windows(&parameters, 100), vec![Range { start: 0, end: 7 }]);
        assert_eq!(windows(&parameters, 1), [0..2, 2..3, 3..4, 4..7]);
        assert!(windows(&[], 1).is_empty());
    }
}
