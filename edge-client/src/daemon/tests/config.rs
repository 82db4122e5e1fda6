use std::path::{Path, PathBuf};

use crate::daemon::{Data, EdgeConfig};

fn read(text: &str, overrides: &[&str]) -> Result<EdgeConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    EdgeConfig::read(Some(&path), &overrides).map_err(|e| e.to_string())
}

const WHOLE: &str = r#"
broker = "mqtts://broker.example:8883"
fleet = "north"
name = "jetson-07"
labels = ["orin"]
state = "state"
bundles = []

[tls]
ca = "/etc/ca.pem"

[data]
files = ["reports.tsv", "/data/more.csv"]
text = "report"
label = "fault"
format = "tsv"

[policy]
min_examples = 50
max_seconds = 600
quiet = "22:00-06:00+02:00"

[limits]
max_temperature = 70
resume_temperature = 65.5
power_modes = ["15W", "2"]

[engine]
engine = "tract"
threads = 2
"#;

#[test]
fn a_whole_file_is_understood_and_its_paths_are_relative_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.toml");
    std::fs::write(&path, WHOLE).unwrap();
    let config = EdgeConfig::read(Some(&path), &[]).unwrap();
    assert_eq!(config.state, folder.path().join("state"));
    assert_eq!(config.data.files, [folder.path().join("reports.tsv"), PathBuf::from("/data/more.csv")]);
    assert_eq!(config.tls.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    let settings = config.settings().unwrap();
    assert_eq!((settings.name.as_str(), settings.fleet.as_str()), ("jetson-07", "north"));
    assert_eq!((settings.policy.min_examples, settings.policy.max_seconds), (50, Some(600)));
    assert_eq!((settings.limits.max_temperature, settings.limits.resume_temperature), (70.0, 65.5));
    assert_eq!(settings.limits.power_modes, ["15W", "2"]);
    assert_eq!(settings.policy.quiet.unwrap().to_string(), "22:00-06:00+02:00");
    assert_eq!((settings.bundles.len(), settings.sources.len(), settings.engine.threads), (0, 1, 2));
    let Data::Files { paths, options } = settings.data else { panic!() };
    assert_eq!((paths.len(), options.columns.text.as_deref()), (2, Some("report")));
}

#[test]
fn without_a_file_the_embedded_defaults_serve() {
    let config = EdgeConfig::read(None, &["name=d1".into()]).unwrap();
    let settings = config.settings().unwrap();
    assert_eq!(settings.broker.to_string(), "mqtt://127.0.0.1:1883");
    assert!(matches!(settings.data, Data::Embedded));
}

#[test]
fn every_field_can_be_overridden() {
    let overrides = [
        "name=b",
        "policy.min_examples=7",
        "labels=['x', 'y']",
        "data.files=[\"f.tsv\"]",
        "data.label=fault code",
        "tls.ca=ca.pem",
    ];
    let config = read(WHOLE, &overrides).unwrap();
    assert_eq!((config.name.as_deref(), config.policy.min_examples, config.labels.len()), (Some("b"), 7, 2));
    assert_eq!(config.data.files, [PathBuf::from("f.tsv")], "relative to where the command is run");
    assert_eq!(config.data.label.as_deref(), Some("fault code"));
    assert_eq!(config.policy.max_seconds, Some(600));
}

#[test]
fn what_cannot_be_used_is_named() {
    let cases = [
        ("brokr = 'x'", "unknown field `brokr`"),
        ("[policy]\nmin_examples = -1", "min_examples"),
        ("[policy]\nquiet = 'at night'", "`at night` is not a stretch of the day"),
        ("[data]\nformat = 'xml'", "xml"),
        ("name = ", "line 1"),
    ];
    for (text, part) in cases {
        let error = read(text, &[]).unwrap_err();
        assert!(error.contains(part) && error.contains("edge.toml"), "{text}: {error}");
    }
    let settings = [
        ("broker = 'http://x'", "setting `broker`: "),
        ("name = 'a/b'", "setting `name`: device name `a/b`"),
        ("fleet = ''", "setting `fleet`: "),
        ("[policy]\nmax_seconds = 0", "setting `policy.max_seconds`: must be at least 1"),
        ("[limits]\nmin_battery = 200", "setting `limits.min_battery`: must be 0 to 100"),
        ("[engine]\nengine = 'torch'", "setting `engine.engine`: "),
        ("[engine]\nprovider = 'tpu'", "setting `engine.provider`: "),
    ];
    for (text, part) in settings {
        let named = if text.starts_with("name") { text.to_string() } else { format!("name = 'd'\n{text}") };
        let error = read(&named, &[]).unwrap().settings().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    for bad in ["name", "=x", "policy.=1", "name.x=1"] {
        let error = read("name = 'd'", &[bad]).unwrap_err();
        assert!(error.contains("not of the form key=value"), "{bad}: {error}");
    }
    assert!(read("", &["policy.most=1"]).unwrap_err().contains("unknown field `most`"));
    let error = EdgeConfig::read(Some(Path::new("no-such.toml")), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read no-such.toml"), "{error}");
}

#[test]
fn the_example_states_the_defaults_and_only_settings_there_are() {
    let example = include_str!("../../../edge.example.toml");
    assert_eq!(toml::from_str::<EdgeConfig>(example).unwrap(), EdgeConfig::default());
    let setting =
        |line: &str| line.strip_prefix("# ").is_some_and(|rest| rest.contains(" = ") || rest.starts_with('['));
    let bare = |line: &str| if setting(line) { line[2..].to_string() } else { line.to_string() };
    let whole: Vec<String> = example.lines().map(bare).collect();
    let config: EdgeConfig = toml::from_str(&whole.join("\n")).unwrap();
    assert!(config.name.is_some() && config.tls.key.is_some() && config.policy.quiet.is_some());
    assert!(config.limits.max_load.is_some());
    assert!(config.engine.library.is_some() && config.data.header.is_some() && config.policy.max_seconds.is_some());
}
