#![allow(clippy::unwrap_used)]

use super::*;

fn options(text: Option<&str>, label: Option<&str>) -> ReadOptions {
    ReadOptions {
        format: None,
        encoding: None,
        header: None,
        columns: Columns { text: text.map(Into::into), pair: None, label: label.map(Into::into) },
        labelled: true,
        task: TaskKind::Classify,
    }
}

fn pairs(data: &Dataset) -> Vec<(&str, &str)> {
    data.examples.iter().map(|e| (e.text.as_str(), e.label.as_deref().unwrap_or("-"))).collect()
}

fn message(result: Result<Dataset, DataError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn tables_with_a_header_by_name_number_and_default() {
    let content = b"sentence\tlabel\nan \"odd journey . \t1\n\nbleak \t0\n";
    for (text, label) in
        [(Some("sentence"), Some("label")), (None, None), (Some("1"), Some("2")), (Some("Sentence"), None)]
    {
        let data = Dataset::parse("dev.tsv", content, &options(text, label)).unwrap();
        assert_eq!(pairs(&data), [("an \"odd journey .", "1"), ("bleak", "0")], "{text:?} {label:?}");
        assert_eq!(data.examples.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 4]);
    }
}

#[test]
fn tables_without_a_header_by_number() {
    let content = b"gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tThey rode sailed.\n";
    let data = Dataset::parse("train.tsv", content, &options(Some("4"), Some("2"))).unwrap();
    assert_eq!(pairs(&data), [("The sailors rode.", "1"), ("They rode sailed.", "0")]);
    let error = message(Dataset::parse("train.tsv", content, &options(Some("5"), Some("2"))));
    assert!(error.contains("no column \"5\"") && error.contains("1 to 4"), "{error}");
    let mut headed = options(Some("4"), Some("2"));
    headed.header = Some(true);
    assert_eq!(Dataset::parse("train.tsv", content, &headed).unwrap().examples.len(), 1);
}

#[test]
fn quoted_csv() {
    let content = "No,Utterance,Speaker,Emotion\n1,\"Oh, he\u{2019}s \"\"lost\"\"\nit.\",Phoebe,sadness\n2,What?,Monica,surprise\n";
    let data = Dataset::parse("meld.csv", content.as_bytes(), &options(Some("Utterance"), Some("Emotion"))).unwrap();
    assert_eq!(pairs(&data), [("Oh, he\u{2019}s \"lost\"\nit.", "sadness"), ("What?", "surprise")]);
    assert_eq!(data.examples[1].line, 4);
}

#[test]
fn a_short_row_is_named() {
    let error = message(Dataset::parse("a.csv", b"text,label\nx,1\ny\n", &options(None, None)));
    assert!(error.starts_with("a.csv:3: 1 columns"), "{error}");
}

#[test]
fn a_missing_column_or_label_is_named() {
    let error = message(Dataset::parse("a.csv", b"text,label\nx,1\n", &options(Some("body"), None)));
    assert!(error.contains("no column \"body\"; --text must name one of: text, label"), "{error}");
    let error = message(Dataset::parse("a.csv", b"text,label\nx,1\ny,\n", &options(None, None)));
    assert!(error.starts_with("a.csv:3: no label"), "{error}");
    let error = message(Dataset::parse("a.csv", b"", &options(None, None)));
    assert!(error.contains("holds no examples"), "{error}");
}

#[test]
fn sentence_pairs() {
    let mut options = options(Some("a"), Some("same"));
    options.columns.pair = Some("b".into());
    let data = Dataset::parse("p.tsv", b"a\tb\tsame\nx y\tz\t1\n", &options).unwrap();
    assert_eq!(data.examples[0].pair.as_deref(), Some("z"));
    let data = Dataset::parse("p.jsonl", b"{\"a\": \"x\", \"b\": \"z\", \"same\": true}\n", &options).unwrap();
    assert_eq!((data.examples[0].pair.as_deref(), data.examples[0].label.as_deref()), (Some("z"), Some("true")));
}

#[test]
fn labelled_lines_coarse_and_fine() {
    let content = b"DESC:manner How did it develop ?\nNUM:count How many ?\n";
    let data = Dataset::parse("TREC.train.all", content, &options(None, None)).unwrap();
    assert_eq!(pairs(&data), [("How did it develop ?", "DESC"), ("How many ?", "NUM")]);
    let data = Dataset::parse("TREC.train.all", content, &options(Some("text"), Some("fine"))).unwrap();
    assert_eq!(data.examples[0].label.as_deref(), Some("DESC:manner"));
    let error = message(Dataset::parse("x.all", b"word\n", &options(None, None)));
    assert!(error.starts_with("x.all:1: expected `LABEL text`"), "{error}");
    let error = message(Dataset::parse("x.all", content, &options(Some("sentence"), None)));
    assert!(error.contains("--text takes `text`"), "{error}");
}

#[test]
fn json_lines_with_lists_and_their_errors() {
    let mut lm = options(Some("speeches"), None);
    lm.labelled = false;
    lm.task = TaskKind::Lm;
    let content = b"{\"client\": \"A\", \"speeches\": [\"one\", \"two\"]}\n{\"client\": \"B\", \"speeches\": []}\n";
    let data = Dataset::parse("s.jsonl", content, &lm).unwrap();
    assert_eq!(pairs(&data), [("one", "-"), ("two", "-")]);
    let error = message(Dataset::parse("s.jsonl", b"{\"a\": 1}\n{\"text\": \n", &options(Some("a"), Some("1"))));
    assert!(error.starts_with("s.jsonl:2: not a JSON object"), "{error}");
    let error = message(Dataset::parse("s.jsonl", b"{\"a\": 1}\n", &options(None, None)));
    assert!(error.starts_with("s.jsonl:1: no field text") && error.contains("one of: a"), "{error}");
    let error = message(Dataset::parse("s.jsonl", b"{\"text\": {\"x\": 1}, \"label\": 1}\n", &options(None, None)));
    assert!(error.contains("--text names a field that is neither"), "{error}");
}

#[test]
fn labels_are_sorted_as_what_they_are() {
    let labels = |content: &str| {
        let data = Dataset::parse("x.all", content.as_bytes(), &options(None, None)).unwrap();
        Labels::collect(&data).map(|l| l.names().to_vec())
    };
    assert_eq!(labels("10 a\n9 b\n10 c\n").unwrap(), ["9", "10"]);
    assert_eq!(labels("b a\na b\n").unwrap(), ["a", "b"]);
    assert!(labels("b a\nb c\n").unwrap_err().to_string().contains("only the label \"b\""));
}

#[test]
fn unknown_labels_and_numbers_are_named_with_their_line() {
    let train = Dataset::parse("train.all", b"a x\nb y\n", &options(None, None)).unwrap();
    let test = Dataset::parse("test.all", b"a x\n\nc y\n", &options(None, None)).unwrap();
    let labels = Labels::collect(&train).unwrap();
    assert_eq!(labels.classes(&train).unwrap(), Targets::Classes(vec![0, 1]));
    let error = labels.classes(&test).unwrap_err().to_string();
    assert_eq!(error, "test.all:3: label \"c\" is none of the classes learnt: a, b");
    let error = Targets::values(&test).unwrap_err().to_string();
    assert!(error.starts_with("test.all:1: regression needs a number"), "{error}");
}

#[test]
fn plain_text_is_one_document_to_a_language_model_and_lines_to_others() {
    let mut options = options(None, None);
    options.labelled = false;
    options.format = Some(Format::Lines);
    assert_eq!(Dataset::parse("x", b"one\n\ntwo\n", &options).unwrap().examples.len(), 2);
    options.format = None;
    options.task = TaskKind::Lm;
    let data = Dataset::parse("play.txt", b"one\n\ntwo\n", &options).unwrap();
    assert_eq!(pairs(&data), [("one\n\ntwo", "-")]);
}
