//! All that trains in a model: the adapters at the backbone's sites and the head.

use std::collections::{BTreeMap, HashMap};

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, CowArray, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::config::{AdapterConfig, Sites};
use crate::error::{Error, Result};
use crate::form::{AdapterForm, HeadForm};
use crate::head::Head;
use crate::init;
use crate::mask::TrainMask;
use crate::module::{Module, Parameter, Role};
use crate::optim::{Group, Rule};

/// What a site is in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// output of the attention, before the residual add
    Attention,
    /// output of the MLP, before the residual add
    Mlp,
    /// the query projection
    Query,
    /// the value projection
    Value,
}

/// A place of the backbone where an adapter can stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// unique; the first part of its parameters' names
    pub id: String,
    /// what it is
    pub kind: SiteKind,
    /// block it is in, from 0 at the bottom
    pub block: usize,
    /// width going in
    pub input: usize,
    /// width coming out
    pub output: usize,
}

/// Widths of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSize {
    /// of the pooled hidden state
    pub input: usize,
    /// classes or targets
    pub outputs: usize,
}

/// The adapters and the head of one model. Parameters are listed site by site, then the head (`head.`), then the extra
/// tensors; every list of the set has that order.
#[derive(Clone, Debug)]
pub struct AdapterSet {
    config: AdapterConfig,
    adapters: Vec<(Site, Box<dyn Adapter>)>,
    head: Option<Head>,
    extras: Vec<(String, ArrayD<f32>)>,
}

/// The sites of a backbone that `config` adapts, in their order: of the method's kinds and in the top `depth` blocks.
pub fn select_sites(config: &AdapterConfig, sites: &[Site]) -> Vec<Site> {
    let blocks = sites.iter().map(|s| s.block + 1).max().unwrap_or(0);
    let lowest = blocks.saturating_sub(config.depth.unwrap_or(blocks));
    let wanted = |site: &&Site| {
        let kind = match site.kind {
            SiteKind::Attention => !config.is_branch() && config.sites != Sites::Mlp,
            SiteKind::Mlp => !config.is_branch() && config.sites != Sites::Attention,
            SiteKind::Query | SiteKind::Value => config.is_branch(),
        };
        kind && site.block >= lowest
    };
    sites.iter().filter(wanted).cloned().collect()
}

impl AdapterSet {
    /// Fresh adapters at the sites `config` selects, and a head if the task has one (`None` for a language model). The
    /// same seed gives the same values, whatever other sites are selected.
    ///
    /// # Errors
    /// Settings out of range or at odds with the widths; no site selected; an id used twice.
    pub fn new(config: &AdapterConfig, sites: &[Site], head: Option<HeadSize>, seed: u64) -> Result<Self> {
        config.validate()?;
        let selected = select_sites(config, sites);
        if selected.is_empty() {
            let kinds = if config.is_branch() { "query or value projection" } else { "attention or MLP output" };
            return Err(Error::config("sites", format!("the backbone has no {kinds} to adapt among its sites")));
        }
        let stream = |number: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number as u64);
            rng
        };
        let head = head.map(|size| init::head(&config.head, size, &mut stream(0))).transpose()?;
        let mut adapters: Vec<(Site, Box<dyn Adapter>)> = Vec::with_capacity(selected.len());
        for site in selected {
            if site.id == "head" || adapters.iter().any(|(other, _)| other.id == site.id) {
                return Err(Error::config("sites", format!("the site id `{}` is reserved or used twice", site.id)));
            }
            let number = 1 + sites.iter().position(|s| s.id == site.id).unwrap_or(0);
            let adapter = init::adapter(config, &site, &mut stream(number))?;
            adapters.push((site, adapter));
        }
        Ok(Self { config: config.clone(), adapters, head, extras: Vec::new() })
    }

    /// Adds a tensor of the backbone to what trains, as it is (a normalisation's gain, with its value in the
    /// backbone). Parameter and graph input carry `name`.
    pub fn add_extra(&mut self, name: impl Into<String>, value: ArrayD<f32>) {
        self.extras.push((name.into(), value));
    }

    /// The settings it was made with.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The adapted sites with their adapters' forms, for the graph.
    pub fn forms(&self) -> Vec<(Site, AdapterForm)> {
        self.adapters.iter().map(|(site, adapter)| (site.clone(), adapter.form())).collect()
    }

    /// The head's form, for the graph.
    pub fn head_form(&self) -> Option<HeadForm> {
        self.head.as_ref().map(Head::form)
    }

    /// The adapters by site.
    pub fn adapters(&self) -> impl Iterator<Item = (&Site, &dyn Adapter)> {
        self.adapters.iter().map(|(site, adapter)| (site, adapter.as_ref()))
    }

    /// The head.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    fn modules(&self) -> impl Iterator<Item = (&str, &dyn Module)> {
        let adapters = self.adapters.iter().map(|(site, adapter)| (site.id.as_str(), adapter.as_ref() as &dyn Module));
        adapters.chain(self.head.iter().map(|head| ("head", head as &dyn Module)))
    }

    /// All parameters with their full names.
    pub fn parameters(&self) -> Vec<Parameter> {
        let modules = self.modules();
        let own = modules.flat_map(|(id, m)| m.parameters().into_iter().map(move |p| p.within(id)));
        let extras = self.extras.iter().map(|(name, value)| Parameter {
            name: name.clone(),
            layer: name.clone(),
            shape: value.shape().to_vec(),
            role: Role::Extra,
            trainable: true,
        });
        own.chain(extras).collect()
    }

    /// Values in the order of [`AdapterSet::parameters`].
    pub fn values(&self) -> Vec<ArrayViewD<'_, f32>> {
        self.modules().flat_map(|(_, m)| m.values()).chain(self.extras.iter().map(|(_, v)| v.view())).collect()
    }

    /// Values to write (by an optimiser), in the order of [`AdapterSet::parameters`].
    pub fn values_mut(&mut self) -> Vec<ArrayViewMutD<'_, f32>> {
        let adapters = self.adapters.iter_mut().flat_map(|(_, adapter)| adapter.values_mut());
        let head = self.head.iter_mut().flat_map(|head| head.values_mut());
        adapters.chain(head).chain(self.extras.iter_mut().map(|(_, v)| v.view_mut())).collect()
    }

    /// What the training graph is fed: `{site}.{tensor}`, `head.{tensor}` and the extra tensors.
    pub fn graph_inputs(&self) -> Vec<(String, ArrayD<f32>)> {
        let mut inputs = Vec::new();
        for (site, adapter) in &self.adapters {
            let names = adapter.form().tensors().into_iter().map(|(name, _)| format!("{}.{name}", site.id));
            inputs.extend(names.zip(adapter.graph_inputs()));
        }
        if let Some(head) = &self.head {
            let names = head.form().tensors().into_iter().map(|(name, _)| format!("head.{name}"));
            inputs.extend(names.zip(head.graph_inputs()));
        }
        inputs.extend(self.extras.iter().cloned());
        inputs
    }

    /// Gradients of the parameters, in their order, from the graph's gradients by graph-input name. Linear, so
    /// gradients of micro-batches may be summed before. A gradient may be absent where nothing behind it trains; it
    /// counts as zero.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Shape`] for a gradient that is needed.
    pub fn pullback(&self, gradients: &HashMap<String, ArrayD<f32>>) -> Result<Vec<ArrayD<f32>>> {
        let mut all = Vec::new();
        for (site, adapter) in &self.adapters {
            all.extend(pull_module(&site.id, adapter.as_ref(), adapter.form().tensors(), gradients)?);
        }
        if let Some(head) = &self.head {
            all.extend(pull_module("head", head, head.form().tensors(), gradients)?);
        }
        for (name, value) in &self.extras {
            all.push(look_up(gradients, name, value.shape())?.ok_or(Error::Missing { name: name.clone() })?.to_owned());
        }
        Ok(all)
    }

    /// Whether each parameter trains under `mask`, in the order of [`AdapterSet::parameters`].
    pub fn mask(&self, mask: &TrainMask) -> Vec<bool> {
        self.parameters().iter().map(|p| mask.trains(p)).collect()
    }

    /// The optimiser's groups, in the order of [`AdapterSet::parameters`]: no weight decay on biases and gains; the
    /// head's learning rate multiplied by `head_rate`; the adapters' cores and factors by `rule`, all else by AdamW.
    pub fn groups(&self, head_rate: f32, rule: Rule) -> Vec<Group> {
        let group = |p: Parameter| {
            let (in_head, matrix) = (p.layer.starts_with("head."), matches!(p.role, Role::Core { .. } | Role::Factor));
            Group {
                decay: matrix,
                rate: if in_head { head_rate } else { 1.0 },
                rule: if matrix && !in_head { rule } else { Rule::AdamW },
                name: p.name,
                shape: p.shape,
            }
        };
        self.parameters().into_iter().map(group).collect()
    }

    /// Values that train under `mask`.
    pub fn count(&self, mask: &TrainMask) -> usize {
        self.parameters().iter().filter(|p| mask.trains(p)).map(Parameter::len).sum()
    }

    /// Copies of all values by name, for a checkpoint or a saved adapter.
    pub fn tensors(&self) -> BTreeMap<String, ArrayD<f32>> {
        self.parameters().into_iter().zip(self.values()).map(|(p, v)| (p.name, v.to_owned())).collect()
    }

    /// Overwrites all values by name; nothing changes if an error is returned.
    ///
    /// # Errors
    /// A parameter missing, unknown, of another shape, or not finite.
    pub fn load(&mut self, tensors: &BTreeMap<String, ArrayD<f32>>) -> Result<()> {
        let parameters = self.parameters();
        if let Some(p) = parameters.iter().find(|p| !tensors.contains_key(&p.name)) {
            return Err(Error::Missing { name: p.name.clone() });
        }
        self.load_some(tensors)
    }

    /// Overwrites the values named in `tensors` and keeps the others; nothing changes if an error is returned.
    ///
    /// # Errors
    /// A name unknown, of another shape, or not finite.
    pub fn load_some(&mut self, tensors: &BTreeMap<String, ArrayD<f32>>) -> Result<()> {
        let parameters = self.parameters();
        let by_name: HashMap<&str, &Parameter> = parameters.iter().map(|p| (p.name.as_str(), p)).collect();
        for (name, tensor) in tensors {
            let parameter = by_name.get(name.as_str()).ok_or_else(|| Error::Unknown { name: name.clone() })?;
            if tensor.shape() != parameter.shape {
                let (expected, found) = (parameter.shape.clone(), tensor.shape().to_vec());
                return Err(Error::Shape { name: name.clone(), expected, found });
            }
            if !tensor.iter().all(|x| x.is_finite()) {
                return Err(Error::NotFinite { name: name.clone() });
            }
        }
        for (parameter, mut value) in parameters.iter().zip(self.values_mut()) {
            if let Some(tensor) = tensors.get(&parameter.name) {
                value.assign(tensor);
            }
        }
        Ok(())
    }
}

fn pull_module(
    id: &str,
    module: &(impl Module + ?Sized),
    inputs: Vec<(String, Vec<usize>)>,
    gradients: &HashMap<String, ArrayD<f32>>,
) -> Result<Vec<ArrayD<f32>>> {
    let frozen: Vec<String> = module.parameters().into_iter().filter(|p| !p.trainable).map(|p| p.name).collect();
    let mut given = Vec::with_capacity(inputs.len());
    for (name, shape) in &inputs {
        let full = format!("{id}.{name}");
        given.push(match look_up(gradients, &full, shape)? {
            Some(gradient) => CowArray::from(gradient),
            None if frozen.contains(name) => CowArray::from(ArrayD::zeros(IxDyn(shape))),
            None => return Err(Error::Missing { name: full }),
        });
    }
    let views: Vec<_> = given.iter().map(|g| g.view()).collect();
    Ok(module.pullback(&views))
}

fn look_up<'a>(
    gradients: &'a HashMap<String, ArrayD<f32>>,
    name: &str,
    expected: &[usize],
) -> Result<Option<ArrayViewD<'a, f32>>> {
    match gradients.get(name) {
        Some(g) if g.shape() == expected => Ok(Some(g.view())),
        Some(g) => Err(Error::Shape { name: name.into(), expected: expected.to_vec(), found: g.shape().to_vec() }),
        None => Ok(None),
    }
}
