//! Columns that line up.

use fedtt_edge::data::Labels;
use fedtt_edge::evaluate::{Evaluation, Metrics};
use fedtt_edge::metrics::Classification;

/// Characters of a column that lines up.
const WIDEST: usize = 1000;

/// Rows of cells, the first column to the left and the others to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    // No format takes a wider one; what is longer stands out.
    let widths: Vec<usize> = (0..count).map(|c| width(c).min(WIDEST)).collect();
    let line = |row: &Vec<String>| {
        let cell = |(c, cell): (usize, &String)| match c {
            0 => format!("{cell:<width$}", width = widths[c]),
            _ => format!("{cell:>width$}", width = widths[c]),
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The figures of an evaluation.
pub(super) fn evaluation(evaluation: &Evaluation, labels: Option<&Labels>) -> String {
    match &evaluation.metrics {
        Metrics::Classify(m) => {
            let figures = columns(&[
                vec!["accuracy".into(), percent(m.accuracy)],
                vec!["macro F1".into(), percent(m.macro_f1)],
                vec!["Matthews".into(), format!("{:.3}", m.matthews)],
                vec!["loss".into(), format!("{:.4}", evaluation.loss)],
                vec!["examples".into(), evaluation.examples.to_string()],
            ]);
            labels.map_or_else(|| figures.clone(), |labels| format!("{figures}\n{}", classes(m, labels)))
        }
        Metrics::Regress(m) => columns(&[
            vec!["mean squared error".into(), format!("{:.5}", m.mse)],
            vec!["mean absolute error".into(), format!("{:.5}", m.mae)],
            vec!["Pearson r".into(), format!("{:.4}", m.pearson)],
            vec!["examples".into(), evaluation.examples.to_string()],
        ]),
        Metrics::Lm(m) => columns(&[
            vec!["nats per token".into(), format!("{:.4}", m.nats_per_token)],
            vec!["perplexity".into(), format!("{:.3}", m.perplexity)],
            vec!["tokens".into(), m.tokens.to_string()],
        ]),
    }
}

/// Precision, recall and F1 by class beside the confusion matrix, while it fits on a screen.
fn classes(m: &Classification, labels: &Labels) -> String {
    let names = labels.names();
    let wide = names.len() <= 12;
    let mut header: Vec<String> = ["class", "precision", "recall", "F1", "examples"].map(String::from).to_vec();
    if wide {
        header.push("| predicted:".into());
        header.extend(names.iter().map(|name| name.chars().take(10).collect()));
    }
    let row = |(k, name): (usize, &String)| {
        let score = &m.classes[k];
        let mut row = vec![name.clone(), percent(score.precision), percent(score.recall), percent(score.f1)];
        row.push(score.support.to_string());
        if wide {
            row.push("|           ".into());
            let count = |&n: &usize| if n == 0 { "·".to_string() } else { n.to_string() };
            row.extend(m.confusion[k].iter().map(count));
        }
        row
    };
    columns(&std::iter::once(header).chain(names.iter().enumerate().map(row)).collect::<Vec<_>>())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_string(), "10".into()], vec!["long".into(), "5".into()]];
        assert_eq!(super::columns(&rows), "a     10\nlong   5\n");
    }

    #[test]
    fn cells_of_any_length_are_shown_whole() {
        let long = "x".repeat(100_000);
        let shown = super::columns(&[vec!["a".into(), long.clone()], vec!["b".into(), "y".into()]]);
        let mut lines = shown.lines();
        assert_eq!(lines.next(), Some(format!("a  {long}").as_str()));
        assert!(lines.next().is_some_and(|line| line.starts_with("b  ") && line.ends_with('y') && line.len() < 1100));
    }
}
