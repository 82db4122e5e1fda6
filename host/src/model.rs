//! Plans in the terms of a backbone: the bundle a plan file names, the parameters its adapters have, the file they end in.

use std::path::{Path, PathBuf};

use fedtt_backbone::training::Task;
use fedtt_edge::adapter_file::{AdapterFile, AdapterFileError};
use fedtt_edge::local::{LocalError, adapter_header};
use fedtt_edge::model::ModelError as GraphError;
use fedtt_edge::source::{Source, SourceError};
use fedtt_edge::tokenize::TokenizeError;
use fedtt_tt::HeadSize;
use fedtt_wire::plan::PlanError;
use fedtt_wire::{Layout, Plan, WireError};
use ndarray::ArrayD;

use crate::run::Blueprint;

/// The word that stands for the embedded encoder.
pub const EMBEDDED: &str = "embedded";

/// A plan cannot be carried out, or its adapter not be written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The plan file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or holds what is no setting.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting is refused.
    #[error("{}: {source}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Which and why.
        source: PlanError,
    },
    /// The bundle it names cannot be opened.
    #[error("{}: plan setting `model.bundle`: {source}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<SourceError>,
    },
    /// It names a bundle by its hash, which does not say where the bundle is.
    #[error("{}: plan setting `model.bundle`: nobody here knows where bundle {hash} is; name its folder", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The hash.
        hash: String,
    },
    /// The plan does not fit the backbone.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Its texts are longer than the backbone takes.
    #[error("plan setting `model.max_length`: {0}")]
    Length(#[from] TokenizeError),
    /// The adapted backbone cannot be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The adapter's settings do not fit the backbone.
    #[error("plan setting `adapter`: {0}")]
    Adapter(#[from] fedtt_tt::Error),
    /// The values are not the plan's.
    #[error(transparent)]
    Values(#[from] WireError),
    /// The adapter cannot be read or written.
    #[error(transparent)]
    File(#[from] AdapterFileError),
}

/// Reads the plan in the file at `path`, with the bundle it names.
///
/// # Errors
/// When the file cannot be read; otherwise as [`resolve`].
pub fn load(path: &Path) -> Result<(Plan, Source), ModelError> {
    let text = std::fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.to_path_buf(), source })?;
    resolve(&text, path)
}

/// The plan in `text`, and the bundle it names: a folder relative to the plan's own, [`EMBEDDED`], or nothing, which means
/// the same. In the plan returned the bundle is named by its hash, as devices know it.
///
/// # Errors
/// With file and field, when the plan is not understood, refused, or its bundle cannot be opened.
pub fn resolve(text: &str, path: &Path) -> Result<(Plan, Source), ModelError> {
    let plan = parse(text, path)?;
    // The rest is judged before a bundle, which may be large, is read.
    plan.validate().map_err(|source| ModelError::Plan { path: path.to_path_buf(), source })?;
    named(plan, path)
}

/// The same for a plan that is still to be completed: nothing but its bundle is judged.
///
/// # Errors
/// With the file, when the plan is not understood or its bundle cannot be opened.
pub fn draft(text: &str, path: &Path) -> Result<(Plan, Source), ModelError> {
    named(parse(text, path)?, path)
}

fn parse(text: &str, path: &Path) -> Result<Plan, ModelError> {
    toml::from_str(text).map_err(|source| ModelError::Syntax { path: path.to_path_buf(), source: Box::new(source) })
}

fn named(plan: Plan, path: &Path) -> Result<(Plan, Source), ModelError> {
    let source = open(&plan.model.bundle, path)?;
    let mut plan = plan;
    plan.model.bundle.clone_from(&source.hash);
    Ok((plan, source))
}

fn open(bundle: &str, path: &Path) -> Result<Source, ModelError> {
    let folder = path.parent().unwrap_or(Path::new("")).join(bundle);
    let is_hash = bundle.len() == 64 && bundle.bytes().all(|b| b.is_ascii_hexdigit()) && !folder.exists();
    let place = (bundle != EMBEDDED && !is_hash).then_some(folder);
    let source = Source::open(place.as_deref())
        .map_err(|source| ModelError::Bundle { path: path.to_path_buf(), source: Box::new(source) })?;
    if is_hash && source.hash != bundle {
        return Err(ModelError::Hash { path: path.to_path_buf(), hash: bundle.to_string() });
    }
    Ok(source)
}

/// What decides the parameters of a plan's adapters in the backbone of `source`.
///
/// # Errors
/// When the plan is for another backbone or its settings do not fit this one.
pub fn blueprint(plan: &Plan, source: &Source) -> Result<Blueprint, ModelError> {
    source.takes(plan.model.max_length)?;
    let objective = adapter_header(plan, source)?.objective(source)?;
    let head = |outputs| Some(HeadSize { input: source.backbone.anatomy.hidden, outputs });
    let blueprint = Blueprint {
        sites: source.backbone.adapter_sites(),
        head: match objective.task {
            Task::Classify { classes } => head(classes),
            Task::Regress { targets } => head(targets),
            Task::CausalLm => None,
        },
        norms: objective.norms.into_iter().map(|norm| (norm.name, norm.value)).collect(),
    };
    blueprint.adapters(plan)?;
    Ok(blueprint)
}

/// Writes `values`, in the order of the layout, as an adapter that `fedtt-edge eval` and `predict` take.
///
/// # Errors
/// When the values are not the plan's or the file cannot be written.
pub fn write_adapter(path: &Path, plan: &Plan, source: &Source, values: &[ArrayD<f32>]) -> Result<(), ModelError> {
    let header = adapter_header(plan, source)?;
    let mut set = header.fresh(source, &header.objective(source)?)?;
    Layout::of(&set.parameters()).check(values)?;
    for (mut own, value) in set.values_mut().into_iter().zip(values) {
        own.assign(value);
    }
    Ok(AdapterFile { header, set }.write(path)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use fedtt_backbone::backbone::Role;
    use fedtt_edge::batch::{BatchShape, EncodedSet};
    use fedtt_edge::data::Targets;
    use fedtt_edge::local::PlanModel;
    use fedtt_edge::model::{AdaptedModel, Use};
    use fedtt_edge::tokenize::Tokens;
    use fedtt_runtime::{EngineChoice, EngineConfig, Model, SessionOptions, Tensor, select};

    use super::*;

    const PLAN: &str = "rounds = 2\nseed = 5\n[model]\nlabels = ['a', 'b', 'c']\nmax_length = 16\ntrain_norms = true\n";

    #[test]
    fn host_and_devices_derive_the_same_parameters_and_starting_values() {
        let (plan, source) = resolve(PLAN, Path::new("plan.toml")).unwrap();
        assert_eq!(plan.model.bundle, source.hash);
        let engine = select(&EngineConfig::default()).unwrap();
        let device = PlanModel::load(&plan, &source, engine.as_ref(), &SessionOptions::default()).unwrap();
        let host = blueprint(&plan, &source).unwrap().adapters(&plan).unwrap();
        assert_eq!(&Layout::of(&host.parameters()), device.layout());
        assert_eq!(fedtt_wire::layout::starting(&host), device.initial());
    }

    #[test]
    fn adapters_are_read_back_as_they_were_written() {
        let (plan, source) = resolve(PLAN, Path::new("plan.toml")).unwrap();
        let set = blueprint(&plan, &source).unwrap().adapters(&plan).unwrap();
        let values: Vec<ArrayD<f32>> = set.values().iter().map(|v| v.mapv(|x| x * 0.5 + 1.0)).collect();
        let path = std::env::temp_dir().join(format!("fedtt-adapter-{}.safetensors", std::process::id()));
        write_adapter(&path, &plan, &source, &values).unwrap();
        let read = AdapterFile::read(&path, &source).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.set.values().iter().map(|v| v.to_owned()).collect::<Vec<_>>(), values);
        let names = read.header.labels.unwrap();
        assert_eq!(names.names(), ["a", "b", "c"]);
        assert!(write_adapter(&path, &plan, &source, &values[1..]).is_err());
    }

    #[test]
    fn the_model_exported_says_what_the_adapted_backbone_says() {
        let (plan, source) = resolve(PLAN, Path::new("plan.toml")).unwrap();
        let set = blueprint(&plan, &source).unwrap().adapters(&plan).unwrap();
        let moved = |i: usize, x: f32| x + 0.1 * ((i % 7) as f32 - 3.0);
        let values: Vec<ArrayD<f32>> = set
            .values()
            .iter()
            .map(|v| v.iter().enumerate().map(|(i, &x)| moved(i, x)).collect::<ndarray::Array1<f32>>())
            .zip(set.values())
            .map(|(moved, v)| moved.into_shape_with_order(v.raw_dim()).unwrap())
            .collect();
        let folder = std::env::temp_dir().join(format!("fedtt-onnx-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, onnx) = (folder.join("adapter.safetensors"), folder.join("model.onnx"));
        write_adapter(&file, &plan, &source, &values).unwrap();
        let adapter = AdapterFile::read(&file, &source).unwrap();
        fedtt_edge::export::onnx(&adapter, &source, &onnx, false).unwrap();
        let AdapterFile { header, set } = adapter;
        let model = Model { bytes: std::fs::read(&onnx).unwrap(), weights_dir: None };
        std::fs::remove_dir_all(&folder).unwrap();

        let engine = select(&EngineConfig { choice: EngineChoice::Tract, ..EngineConfig::default() }).unwrap();
        let options = SessionOptions::default();
        let row = Tokens { ids: vec![101, 1996, 2003, 102], types: vec![0; 4] };
        let examples = EncodedSet { rows: vec![row], targets: Targets::Classes(vec![1]) };
        let batch = examples.batch(&[0], BatchShape { rows: 1, max_length: 16, pad_id: 0 }, 1.0);
        let objective = header.objective(&source).unwrap();
        let (backbone, purpose) = (&source.backbone, Use::Forward);
        let mut adapted = AdaptedModel::load(backbone, &set, &objective, engine.as_ref(), &options, purpose).unwrap();
        let expected = adapted.forward(&set, &batch).unwrap().result;
        let mut session = engine.load(&model, &options).unwrap();
        let fed = |(role, name): &(Role, String)| {
            let values = match role {
                Role::Ids => &batch.ids,
                Role::Mask => &batch.mask,
                Role::Types => &batch.types,
                Role::Positions => &batch.positions,
            };
            (name.clone(), backbone.feed(name, values.clone()))
        };
        let feeds: Vec<(String, Tensor)> = backbone.feeds.iter().map(fed).collect();
        let inputs: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let Tensor::F32(found) = &session.run(&inputs, &["logits"]).unwrap()[0] else { panic!("no logits") };
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found} {expected}");
        assert!(expected.iter().any(|x| x.abs() > 1e-3), "{expected}");
    }

    #[test]
    fn refusals_name_file_and_field() {
        let refused = |text: &str| resolve(text, Path::new("some/plan.toml")).unwrap_err().to_string();
        for (text, named) in [
            ("rounds = 0\n[model]\nlabels = ['a', 'b']", "`rounds`"),
            ("round = 1", "unknown field `round`"),
            ("[model]\nlabels = ['a', 'b']\nbundle = 'nothing-here'", "nothing-here"),
        ] {
            let error = refused(text);
            assert!(error.contains("plan.toml") && error.contains(named), "{error}");
        }
        let text = "[model]\nlabels = ['a', 'b']\nmax_length = 129";
        let (plan, source) = resolve(text, Path::new("some/plan.toml")).unwrap();
        let error = blueprint(&plan, &source).err().unwrap().to_string();
        assert!(error.contains("`model.max_length`") && error.contains("than the 128"), "{error}");
        let hash = "ab".repeat(32);
        let error = refused(&format!("[model]\nlabels = ['a', 'b']\nbundle = '{hash}'"));
        assert!(error.contains("`model.bundle`") && error.contains(&hash), "{error}");
    }
}
