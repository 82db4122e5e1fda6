//! One JSON object per line.

use serde_json::{Map, Value};

use super::table::{LABEL_NAMES, TEXT_NAMES};
use super::{DataError, Example, ReadOptions};

/// Reads objects; the text field may be a list of texts, which become one example each.
pub(super) fn read(name: &str, content: &str, options: &ReadOptions) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::new();
    for (index, row) in content.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let line = index + 1;
        let object: Map<String, Value> =
            serde_json::from_str(row).map_err(|e| DataError::line(name, line, format!("not a JSON object: {e}")))?;
        let field = |flag: &str, given: Option<&str>, usual: &[&str]| pick(name, line, &object, flag, given, usual);
        let columns = &options.columns;
        let texts = field("--text", columns.text.as_deref(), TEXT_NAMES)?.unwrap_or_default();
        let pair = match columns.pair.as_deref() {
            Some(given) => field("--text-pair", Some(given), &[])?.map(|v| v.join(" ")),
            None => None,
        };
        let label = if options.labelled || columns.label.is_some() {
            field("--label", columns.label.as_deref(), LABEL_NAMES)?.map(|v| v.join(" "))
        } else {
            None
        };
        let example = |text| Example { text, pair: pair.clone(), label: label.clone(), line };
        examples.extend(texts.into_iter().map(example));
    }
    Ok(examples)
}

/// The field's values as text, or `None` when it is null.
fn pick(
    name: &str,
    line: usize,
    object: &Map<String, Value>,
    flag: &str,
    given: Option<&str>,
    usual: &[&str],
) -> Result<Option<Vec<String>>, DataError> {
    let value = match given {
        Some(key) => object.get(key).or_else(|| {
            let index = key.parse::<usize>().ok()?.checked_sub(1)?;
            object.values().nth(index)
        }),
        None => usual.iter().find_map(|key| object.get(*key)),
    };
    let value = value.ok_or_else(|| {
        let fields = object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let what = given.map_or_else(|| usual.join(", "), |key| format!("{key:?}"));
        DataError::line(name, line, format!("no field {what}; {flag} must name one of: {fields}"))
    })?;
    let scalar = |value: &Value| match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        _ => Err(DataError::line(name, line, format!("{flag} names a field that is neither a text nor a number"))),
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => items.iter().map(scalar).collect::<Result<_, _>>().map(Some),
        other => Ok(Some(vec![scalar(other)?])),
    }
}
