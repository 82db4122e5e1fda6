//! What every command sets up first.

use anyhow::Context as _;
use fedtt_edge::adapter_file::AdapterFile;
use fedtt_edge::batch::BatchShape;
use fedtt_edge::fetch::Held;
use fedtt_edge::flags::EngineArgs;
use fedtt_edge::model::{AdaptedModel, Use};
use fedtt_edge::prepare::Encoding;
use fedtt_edge::source::Source;
use fedtt_edge::tokenize::TextEncoder;
use fedtt_runtime::select;

use super::args::{AdapterArgs, UseArgs};

/// An adapter at work: its backbone, its model on an engine, and its encoder.
pub(crate) struct Working {
    pub(crate) source: Source,
    pub(crate) adapter: AdapterFile,
    pub(crate) model: AdaptedModel,
    pub(crate) encoder: TextEncoder,
    pub(crate) engine: String,
    pub(crate) held: Option<Held>,
}

/// Reads an adapter into its backbone, for the forward pass.
pub(crate) fn open(args: &UseArgs) -> anyhow::Result<Working> {
    working(&args.adapter, &args.engine)
}

/// The same for those who read no files.
pub(crate) fn working(adapter: &AdapterArgs, engine: &EngineArgs) -> anyhow::Result<Working> {
    let found = adapter.find()?;
    let source = Source::open(found.bundle.as_deref())?;
    let adapter = AdapterFile::read(&found.file, &source)?;
    let encoder = source.encoder(adapter.header.training.max_length)?;
    let chosen = select(&engine.config())?;
    let objective = adapter.header.objective(&source)?;
    let options = engine.session();
    let model = AdaptedModel::load(&source.backbone, &adapter.set, &objective, chosen.as_ref(), &options, Use::Forward)
        .context("cannot load the adapted backbone")?;
    Ok(Working { source, adapter, model, encoder, engine: chosen.name(), held: found.held })
}

impl Working {
    pub(crate) fn encoding(&self) -> Encoding<'_> {
        let header = &self.adapter.header;
        Encoding {
            encoder: &self.encoder,
            vocabulary: self.source.backbone.vocabulary(),
            task: header.task,
            labels: header.labels.as_ref(),
            scale: header.scale,
        }
    }

    pub(crate) fn shape(&self, rows: usize) -> BatchShape {
        BatchShape { rows, max_length: self.encoder.max_length(), pad_id: self.encoder.pad_id() }
    }
}
