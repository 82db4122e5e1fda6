//! Exported models in stock ONNX Runtime say what `fedtt-edge predict` says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedtt_tests::{Word, data, shared};
use serde_json::Value;

const TEXTS: [&str; 5] = [
    "pump 3 trips its breaker at start",
    "no signal",
    "the bearing of the fan screams and smells of oil since the storm on Sunday night",
    "oil",
    "gateway lost its link to the mast again",
];

/// A folder with adapters and what is exported of them.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edge(&self, words: &[Word<'_>]) -> Value {
        data("fedtt-edge", words)
    }

    /// Trains some steps with `options`, exports the result with `more`, and compares.
    fn check(&self, name: &str, bundle: Option<&Path>, train: &[Word<'_>], export: &[Word<'_>], texts: &Path) {
        let (adapter, model) = (self.path(&format!("{name}.safetensors")), self.path(&format!("{name}.onnx")));
        let of_bundle: Vec<Word<'_>> = bundle.iter().flat_map(|b| [&"--bundle" as Word<'_>, b]).collect();
        let engine: [Word<'_>; 4] = [&"--engine", &"tract", &"--threads", &"1"];
        let fit: [Word<'_>; 5] = [&"train", &"--epochs", &"1", &"--out", &adapter];
        let fit = [&fit[..], train, &of_bundle, &engine].concat();
        self.edge(&fit);
        let said =
            self.predictions(name, &[&[&"--adapter" as Word<'_>, &adapter], &of_bundle[..], &engine].concat(), texts);
        let words: [Word<'_>; 7] = [&"export", &"--adapter", &adapter, &"--format", &"onnx", &"--out", &model];
        let exported = self.edge(&[&words, export, &of_bundle].concat());
        assert_eq!(exported["output"], "logits", "{exported}");
        self.compare(&model, &said, bundle.map(|b| b.join("tokenizer.json")).filter(|t| t.exists()));
    }

    /// What `predict` says of each line of `texts`, in a file.
    fn predictions(&self, name: &str, with: &[Word<'_>], texts: &Path) -> PathBuf {
        let file = self.path(&format!("{name}.json"));
        let words: [Word<'_>; 3] = [&"predict", &"--file", &texts];
        let (envelope, code) = fedtt_tests::json("fedtt-edge", &[&words, with].concat());
        assert_eq!(code, 0, "{envelope}");
        std::fs::write(&file, envelope.to_string()).unwrap();
        file
    }

    fn compare(&self, model: &Path, said: &Path, tokenizer: Option<PathBuf>) {
        let python = std::env::var("FEDTT_PYTHON").unwrap_or("python3".into());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/onnx_equal.py");
        let mut command = Command::new(&python);
        command.arg(&program).arg(model).arg(said);
        if let Some(tokenizer) = tokenizer {
            command.arg("--tokenizer").arg(tokenizer);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}{}", model.display(), String::from_utf8_lossy(&output.stderr));
    }

    fn texts(&self) -> PathBuf {
        let path = self.path("texts.txt");
        std::fs::write(&path, TEXTS.join("\n")).unwrap();
        path
    }

    /// The embedded encoder and its tokenizer as files of a bundle.
    fn embedded_tokenizer(&self) -> PathBuf {
        let path = self.path("tokenizer.json");
        std::fs::write(&path, fedtt_zoo::encoder().tokenizer).unwrap();
        path
    }

    fn reports(&self) -> PathBuf {
        let path = self.path("reports.tsv");
        let mut text = String::from("text\tlabel\n");
        for i in 0..48 {
            let (words, label) = [("leaks oil", "pump"), ("lost its link", "mast"), ("tripped", "power")][i % 3];
            writeln!(text, "unit {i} {words} near gate {}\t{label}", i / 3).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Every adapter, grafted as plain nodes into the embedded encoder.
#[test]
#[ignore = "needs Python with onnxruntime, numpy and tokenizers; FEDTT_PYTHON names it"]
fn exports_of_the_embedded_encoder_are_equal() {
    let bench = Bench::new();
    let (texts, reports) = (bench.texts(), bench.reports());
    let tokenizer = bench.embedded_tokenizer();
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("tt", &["--init", "loretta"], &[]),
        (
            "tt-head",
            &["--init", "loretta", "--head", "tt", "--activation", "gelu", "--train-norms"],
            &["--external-data"],
        ),
        ("dense", &["--adapter", "dense", "--activation", "silu"], &[]),
        ("lora", &["--adapter", "lora"], &[]),
        ("ffa-lora", &["--adapter", "ffa-lora", "--depth", "2"], &[]),
        ("tt-lora", &["--adapter", "tt-lora", "--rank", "4"], &[]),
        ("tt-core", &["--adapter", "tt-core", "--rank", "12"], &[]),
        ("cls", &["--init", "loretta", "--pooling", "cls", "--activation", "tanh"], &[]),
        ("last", &["--init", "loretta", "--pooling", "last", "--sites", "mlp", "--scaling", "0.5"], &[]),
    ];
    for (name, train, export) in cases {
        let (adapter, model) = (bench.path(&format!("{name}.safetensors")), bench.path(&format!("{name}.onnx")));
        let fixed: [Word<'_>; 13] = [
            &"train",
            &"--data",
            &reports,
            &"--epochs",
            &"1",
            &"--batch",
            &"8",
            &"--out",
            &adapter,
            &"--engine",
            &"tract",
            &"--lr",
            &"0.02",
        ];
        let own: Vec<Word<'_>> = train.iter().map(|word| word as Word<'_>).collect();
        bench.edge(&[&fixed[..], &own].concat());
        let said = bench.predictions(name, &[&"--adapter", &adapter, &"--engine", &"tract"], &texts);
        let fixed: [Word<'_>; 7] = [&"export", &"--adapter", &adapter, &"--format", &"onnx", &"--out", &model];
        let own: Vec<Word<'_>> = export.iter().map(|word| word as Word<'_>).collect();
        let exported = bench.edge(&[&fixed[..], &own].concat());
        assert_eq!(exported["inputs"], serde_json::json!(["input_ids", "attention_mask"]), "{exported}");
        assert_eq!(bench.path(&format!("{name}.onnx.data")).exists(), !export.is_empty());
        bench.compare(&model, &said, Some(tokenizer.clone()));
    }
}

/// Exports of common exporters, on token ids.
#[test]
#[cfg_attr(not(shared), ignore = "needs ../shared")]
#[cfg_attr(shared, ignore = "needs Python with onnxruntime, numpy and tokenizers; FEDTT_PYTHON names it")]
fn exports_of_other_families_are_equal() {
    let bench = Bench::new();
    let ids = bench.path("ids.tsv");
    let mut text = String::from("text\tlabel\n");
    for i in 0..48u32 {
        let ids: Vec<String> = (0..3 + i % 7).map(|j| (3 + (i * 31 + j * (7 + i % 3)) % 97).to_string()).collect();
        writeln!(text, "{}\t{}", ids.join(" "), ["x", "y"][i as usize % 2]).unwrap();
    }
    std::fs::write(&ids, text).unwrap();
    let texts = bench.path("ids.txt");
    std::fs::write(&texts, "5 9 3 77\n12 4\n3 4 5 6 7 8 9 10\n99 98 97\n").unwrap();
    for (family, file, options) in [
        ("bert", "optimum-opset18", &["--init", "loretta"][..]),
        ("bert", "int8-weightonly-qdq-opset18", &["--adapter", "lora"]),
        ("llama", "torchscript-sdpa-opset17", &["--init", "loretta", "--pooling", "last", "--train-norms"]),
        ("llama", "optimum-opset18", &["--adapter", "ffa-lora", "--pooling", "last"]),
        ("llama", "int4-matmulnbits-opset18", &["--adapter", "dense", "--pooling", "last"]),
        ("gpt2", "dynamo-opset20", &["--init", "loretta", "--pooling", "last"]),
    ] {
        let name = format!("{family}-{file}");
        let (bundle, onnx) = (bench.path(&name), shared(&format!("fixtures/{family}/{file}.onnx")));
        data("fedtt", &[&"backbone", &"prepare", &onnx, &"-o", &bundle]);
        let options: Vec<Word<'_>> = options.iter().map(|word| word as Word<'_>).collect();
        let train: [Word<'_>; 6] = [&"--data", &ids, &"--batch", &"8", &"--bottleneck", &"8"];
        bench.check(&name, Some(&bundle), &[&train[..], &options].concat(), &[], &texts);
    }
}

/// A language model's next token, and a number.
#[test]
#[cfg_attr(not(shared), ignore = "needs ../shared")]
#[cfg_attr(shared, ignore = "needs Python with onnxruntime, numpy and tokenizers; FEDTT_PYTHON names it")]
fn exports_for_other_tasks_are_equal() {
    let bench = Bench::new();
    let model = |file: &str| shared(&format!("models/stories260k/{file}"));
    let bundle = bench.path("stories");
    let (onnx, tokenizer) = (model("model.onnx"), model("tokenizer.json"));
    data("fedtt", &[&"backbone", &"prepare", &onnx, &"--tokenizer", &tokenizer, &"-o", &bundle]);
    let text = bench.path("stories.txt");
    let stories: String =
        (0..24).map(|i| format!("Once upon a time there was a cat with {i} hats. It was happy.\n")).collect();
    std::fs::write(&text, stories).unwrap();
    let texts = bench.texts();
    let train: [Word<'_>; 10] =
        [&"--task", &"lm", &"--data", &text, &"--format", &"lines", &"--batch", &"4", &"--init", &"loretta"];
    bench.check("stories", Some(&bundle), &train, &[], &texts);

    let numbers = bench.path("numbers.tsv");
    let rows: String = (0..40).map(|i| format!("the meter reads {i} bar\t{}\n", 3 * i + 7)).collect();
    std::fs::write(&numbers, format!("text\tvalue\n{rows}")).unwrap();
    let (adapter, model) = (bench.path("numbers.safetensors"), bench.path("numbers.onnx"));
    let tokenizer = bench.embedded_tokenizer();
    bench.edge(&[
        &"train",
        &"--task",
        &"regress",
        &"--data",
        &numbers,
        &"--label",
        &"value",
        &"--epochs",
        &"1",
        &"--out",
        &adapter,
        &"--engine",
        &"tract",
        &"--init",
        &"loretta",
    ]);
    let said = bench.predictions("numbers", &[&"--adapter", &adapter, &"--engine", &"tract"], &texts);
    bench.edge(&[&"export", &"--adapter", &adapter, &"--format", &"onnx", &"--out", &model]);
    bench.compare(&model, &said, Some(tokenizer));
}
