//! Trained adapters become part of the frozen graph: a backbone that new adapters can be trained in.

use std::collections::HashMap;

use fedtt_tt::form::AdapterForm;
use ndarray::ArrayD;

use crate::backbone::Backbone;
use crate::graft::{Graft, graft};
use crate::ir::{Graph, Weight};
use crate::sites::{Anatomy, Site};
use crate::training::{Norm, TrainingError};

/// A backbone with adapters in it.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The graph; the adapters' factors are among its weights.
    pub graph: Graph,
    /// Where new adapters go: behind those that are in it.
    pub anatomy: Anatomy,
}

/// Puts `adapters`, by site, into the graph of `backbone` for good, with the factors `values` by name, and gives the gains
/// `norms` their trained values (in the gain's own type). Sites keep their ids; their tensors are those with the adapter in.
///
/// # Errors
/// When a site is unknown, an adapter does not fit, or a value is missing.
pub fn merge(
    backbone: &Backbone,
    adapters: &[(String, AdapterForm)],
    norms: &[Norm],
    values: &[(String, ArrayD<f32>)],
) -> Result<Merged, TrainingError> {
    let values: HashMap<&str, &ArrayD<f32>> = values.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let of = |name: &str| {
        values.get(name).copied().ok_or_else(|| TrainingError::Task(format!("no value is given for `{name}`")))
    };
    let mut graph = backbone.kept_graph();
    for norm in norms {
        let trained: Vec<f32> = of(&norm.name)?.iter().copied().collect();
        if let Some(weight) = graph.weights.get_mut(&norm.weight).filter(|weight| weight.len() == trained.len()) {
            *weight = Weight::floats(weight.dtype, &weight.shape, &trained);
        }
    }
    let known = |id: &String| {
        backbone.site(id).cloned().ok_or_else(|| TrainingError::UnknownSite {
            site: id.clone(),
            known: backbone.sites().map(|site| site.id.as_str()).collect::<Vec<_>>().join(", "),
        })
    };
    let grafts = adapters.iter().map(|(id, form)| Ok((known(id)?, Graft::Adapter(form.clone()))));
    let grafts = grafts.collect::<Result<Vec<(Site, Graft)>, TrainingError>>()?;
    let mut grafted = graft(&graph, &backbone.facts, &grafts)?;

    let anatomy = &backbone.anatomy;
    let site =
        |site: &Site| Site { tensor: grafted.value(&site.tensor), input: grafted.value(&site.input), ..site.clone() };
    let anatomy = Anatomy {
        hidden: anatomy.hidden,
        sites: anatomy.sites.iter().map(site).collect(),
        branches: anatomy.branches.iter().map(site).collect(),
        streams: anatomy.streams.iter().map(|stream| stream.as_ref().map(|s| grafted.value(s))).collect(),
        hidden_state: grafted.value(&anatomy.hidden_state),
        logits: anatomy.logits.as_ref().map(|logits| grafted.value(logits)),
        causal: anatomy.causal,
    };
    for name in std::mem::take(&mut grafted.inputs) {
        let value = of(&name)?;
        let data: Vec<f32> = value.iter().copied().collect();
        // Under a name of its own: adapters that are grafted later have inputs of these names.
        let constant = grafted.builder.constant(&format!("merged.{name}"), Weight::f32s(value.shape(), &data));
        grafted.builder.graph.redirect(&name, &constant);
        grafted.builder.graph.inputs.retain(|port| port.name != name);
    }
    let mut graph = grafted.builder.graph;
    graph.prune();
    Ok(Merged { graph, anatomy })
}
