//! Tables: tab- or comma-separated, with or without a header.

use csv::StringRecord;

use super::{DataError, Example, ReadOptions};

/// Names a text column usually has, best first.
pub(super) const TEXT_NAMES: &[&str] =
    &["text", "sentence", "utterance", "question", "review", "content", "sentence1", "premise", "speeches"];
/// Names a label column usually has, best first.
pub(super) const LABEL_NAMES: &[&str] = &["label", "labels", "class", "category", "target", "score", "sentiment"];

/// Reads a table whose cells are separated by `delimiter`.
pub(super) fn read(name: &str, content: &str, delimiter: u8, options: &ReadOptions) -> Result<Vec<Example>, DataError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .has_headers(false)
        .flexible(true)
        .from_reader(content.as_bytes());
    let mut rows = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for record in reader.records() {
        let record = record.map_err(|e| DataError::file(name, e.to_string()))?;
        // The position is where the reader went on, before any blank lines it then skipped.
        let mut start = record.position().map_or(0, |p| p.byte() as usize);
        start += content.as_bytes()[start..].iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
        line += content.as_bytes()[counted..start].iter().filter(|&&b| b == b'\n').count();
        counted = start;
        rows.push((line, record));
    }
    let Some((_, first)) = rows.first() else { return Ok(Vec::new()) };
    let header = options.header.unwrap_or_else(|| looks_like_header(first, options)).then(|| first.clone());
    let skip = usize::from(header.is_some());
    let width = first.len();
    let columns = &options.columns;
    let find =
        |flag: &str, given: Option<&str>, usual: &[&str]| locate(name, header.as_ref(), width, flag, given, usual);
    let text = find("--text", columns.text.as_deref(), TEXT_NAMES)?;
    let pair = match columns.pair.as_deref() {
        Some(given) => Some(find("--text-pair", Some(given), &[])?),
        None => None,
    };
    let label = match columns.label.as_deref() {
        Some(given) => Some(find("--label", Some(given), &[])?),
        None if options.labelled => Some(find("--label", None, LABEL_NAMES)?),
        None => None,
    };
    let rows = rows.iter().skip(skip).map(|(line, row)| {
        let cell = |column: usize| {
            row.get(column).map(str::trim).ok_or_else(|| {
                let message = format!("{} columns where column {} is wanted", row.len(), column + 1);
                DataError::line(name, *line, message)
            })
        };
        let label = label.map(cell).transpose()?.filter(|l| !l.is_empty()).map(str::to_string);
        Ok(Example {
            text: cell(text)?.to_string(),
            pair: pair.map(cell).transpose()?.map(str::to_string),
            label,
            line: *line,
        })
    });
    rows.collect()
}

/// A header holds a column that is named, or, where columns are numbered or left out, one of the usual names.
fn looks_like_header(first: &StringRecord, options: &ReadOptions) -> bool {
    let columns = &options.columns;
    let given: Vec<&str> =
        [&columns.text, &columns.pair, &columns.label].into_iter().flatten().map(String::as_str).collect();
    let holds = |name: &str| first.iter().any(|cell| cell.trim().eq_ignore_ascii_case(name));
    given.iter().any(|name| name.parse::<usize>().is_err() || holds(name))
        || TEXT_NAMES.iter().chain(LABEL_NAMES).any(|name| holds(name))
}

fn locate(
    name: &str,
    header: Option<&StringRecord>,
    width: usize,
    flag: &str,
    given: Option<&str>,
    usual: &[&str],
) -> Result<usize, DataError> {
    let by_name = |wanted: &str| {
        let header = header?;
        let exact = header.iter().position(|cell| cell.trim() == wanted);
        exact.or_else(|| header.iter().position(|cell| cell.trim().eq_ignore_ascii_case(wanted)))
    };
    let by_number = |wanted: &str| wanted.parse::<usize>().ok()?.checked_sub(1).filter(|&i| i < width);
    let found = match given {
        Some(given) => by_name(given).or_else(|| by_number(given)),
        None => usual.iter().find_map(|usual| by_name(usual)),
    };
    found.ok_or_else(|| {
        let what = given.map_or_else(|| format!("any of {}", usual.join(", ")), |given| format!("{given:?}"));
        let known = match header {
            Some(header) => header.iter().map(str::trim).collect::<Vec<_>>().join(", "),
            None => format!("1 to {width} (columns count from 1; there is no header)"),
        };
        DataError::file(name, format!("no column {what}; {flag} must name one of: {known}"))
    })
}
