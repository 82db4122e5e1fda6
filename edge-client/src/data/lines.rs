//! Texts without columns: labelled lines, plain lines, whole documents.

use super::{DataError, Example, ReadOptions};

/// The label is the first word of each line; of `COARSE:fine` the part before the colon, or all of it with
/// `--label fine`.
pub(super) fn labelled(name: &str, content: &str, options: &ReadOptions) -> Result<Vec<Example>, DataError> {
    let columns = &options.columns;
    let wrong = |flag: &str, given: &str, known: &str| {
        Err(DataError::file(name, format!("labelled lines have no column {given:?}; {flag} takes {known}")))
    };
    let fine = match columns.label.as_deref() {
        None | Some("label" | "1") => false,
        Some("fine") => true,
        Some(other) => return wrong("--label", other, "`label` or `fine`"),
    };
    match columns.text.as_deref() {
        None | Some("text" | "2") => {}
        Some(other) => return wrong("--text", other, "`text`"),
    }
    if let Some(pair) = &columns.pair {
        return wrong("--text-pair", pair, "nothing here");
    }
    let rows = numbered(content).map(|(line, row)| {
        let (label, text) = row
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| DataError::line(name, line, "expected `LABEL text`; say what it is with --format"))?;
        let label = if fine { label } else { label.split_once(':').map_or(label, |(coarse, _)| coarse) };
        Ok(Example { text: text.trim().to_string(), pair: None, label: Some(label.to_string()), line })
    });
    rows.collect()
}

/// One text per line.
pub(super) fn plain(content: &str) -> Vec<Example> {
    let example = |(line, row): (usize, &str)| Example { text: row.trim().to_string(), pair: None, label: None, line };
    numbered(content).map(example).collect()
}

/// The whole file.
pub(super) fn document(content: &str) -> Vec<Example> {
    let text = content.trim();
    let example = Example { text: text.to_string(), pair: None, label: None, line: 1 };
    if text.is_empty() { Vec::new() } else { vec![example] }
}

fn numbered(content: &str) -> impl Iterator<Item = (usize, &str)> {
    content.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()).map(|(i, row)| (i + 1, row))
}
