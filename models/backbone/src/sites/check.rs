//! Whether what a bundle says of its graph is so.

use std::collections::HashSet;

use super::anatomy::separates;
use super::branch::is_projection_of;
use super::{Anatomy, MAX_BLOCKS, Site, SiteError, SiteKind, View};
use crate::ir::Graph;
use crate::shape::Facts;

/// Checks that every tensor `anatomy` names is in `graph` with the width given, and lies where it says.
///
/// # Errors
/// Names the field and what the graph has in its place.
pub fn check(anatomy: &Anatomy, graph: &Graph, facts: &Facts) -> Result<(), SiteError> {
    let check = Check { view: &View::new(graph, facts), anatomy };
    check.blocks()?;
    check.sites("sites", &anatomy.sites, [SiteKind::Attn, SiteKind::Mlp])?;
    check.sites("branches", &anatomy.branches, [SiteKind::Query, SiteKind::Value])?;
    check.once()?;
    check.hidden_state()?;
    check.logits()?;
    check.streams()
}

struct Check<'c, 'a> {
    view: &'c View<'a>,
    anatomy: &'a Anatomy,
}

fn refuse(field: &str, problem: impl Into<String>) -> SiteError {
    SiteError::Recorded { field: format!("anatomy.{field}"), problem: problem.into() }
}

impl<'a> Check<'_, 'a> {
    fn blocks(&self) -> Result<(), SiteError> {
        let sites = &self.anatomy.sites;
        if let Some(site) = sites.iter().position(|site| site.block >= MAX_BLOCKS) {
            let problem = format!("is {}; a backbone has at most {MAX_BLOCKS} blocks", sites[site].block);
            return Err(refuse(&format!("sites[{site}].block"), problem));
        }
        let Some(last) = sites.iter().map(|site| site.block).max() else { return Err(refuse("sites", "is empty")) };
        let (found, blocks) = (self.anatomy.streams.len(), last + 1);
        if found != blocks {
            return Err(refuse("streams", format!("has {found} entries for {blocks} blocks")));
        }
        Ok(())
    }

    fn sites(&self, list: &str, sites: &'a [Site], kinds: [SiteKind; 2]) -> Result<(), SiteError> {
        for (i, site) in sites.iter().enumerate() {
            let field = |name: &str| format!("{list}[{i}].{name}");
            if !kinds.contains(&site.kind) {
                return Err(refuse(&field("kind"), "belongs elsewhere"));
            }
            if site.block >= self.anatomy.streams.len() {
                let problem = format!("is {} where there are {} blocks", site.block, self.anatomy.streams.len());
                return Err(refuse(&field("block"), problem));
            }
            let id = site.kind.id(site.block);
            if site.id != id {
                return Err(refuse(&field("id"), format!("is `{}` where block and kind make `{id}`", site.id)));
            }
            self.computed(&field("tensor"), &site.tensor, None)?;
            self.width(&field("width_out"), site.width_out, &site.tensor)?;
            if self.view.facts.get(&site.input).is_none() {
                return Err(refuse(&field("input"), format!("names `{}`, which the graph lacks", site.input)));
            }
            // Of a site named by hand, what comes in may have no width.
            if self.view.width(&site.input).is_some() || site.width_in != site.width_out {
                self.width(&field("width_in"), site.width_in, &site.input)?;
            }
            // A site named by hand is recorded with what its own node reads first, where it is no projection.
            let first = self.view.producer(&site.tensor).and_then(|node| node.input(0));
            if first != Some(&site.input) && !is_projection_of(self.view, &site.tensor, &site.input) {
                let problem = format!("names `{}`, of which `{}` is no projection", site.input, site.tensor);
                return Err(refuse(&field("input"), problem));
            }
        }
        Ok(())
    }

    /// No two sites have an id or a tensor in common.
    fn once(&self) -> Result<(), SiteError> {
        let (mut ids, mut tensors) = (HashSet::new(), HashSet::new());
        for site in self.anatomy.sites.iter().chain(&self.anatomy.branches) {
            if !ids.insert(&site.id) || !tensors.insert(&site.tensor) {
                return Err(refuse("sites", format!("has `{}` or its tensor `{}` twice", site.id, site.tensor)));
            }
        }
        Ok(())
    }

    fn hidden_state(&self) -> Result<(), SiteError> {
        let value = &self.anatomy.hidden_state;
        self.computed("hidden_state", value, Some(3))?;
        self.width("hidden", self.anatomy.hidden, value)?;
        self.ends("hidden_state", value)
    }

    fn logits(&self) -> Result<(), SiteError> {
        let Some(value) = &self.anatomy.logits else { return Ok(()) };
        self.computed("logits", value, Some(3))?;
        if self.view.width(value).is_none_or(|width| width == self.anatomy.hidden) {
            return Err(refuse("logits", format!("names `{value}`, which is not as wide as a vocabulary")));
        }
        self.ends("logits", value)
    }

    /// Whether `value` comes after every site.
    fn ends(&self, field: &str, value: &'a str) -> Result<(), SiteError> {
        let behind = self.view.behind(value);
        let mut sites = self.anatomy.sites.iter().chain(&self.anatomy.branches);
        match sites.find(|site| site.tensor == value || !behind.contains(site.tensor.as_str())) {
            Some(site) => Err(refuse(field, format!("names `{value}`, which does not follow from site `{}`", site.id))),
            None => Ok(()),
        }
    }

    fn streams(&self) -> Result<(), SiteError> {
        let sites = &self.anatomy.sites;
        let outputs = self.view.outputs();
        for (block, stream) in self.anatomy.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            let field = format!("streams[{block}]");
            self.computed(&field, stream, None)?;
            let width = self.view.width(stream);
            if !sites.iter().any(|site| Some(site.width_out) == width) {
                return Err(refuse(&field, format!("names `{stream}`, which is not of the sites' width")));
            }
            let lower: Vec<&str> = sites.iter().filter(|s| s.block < block).map(|s| s.tensor.as_str()).collect();
            let mut above = sites.iter().filter(|site| site.block == block);
            let enters = above.all(|site| self.view.behind(&site.tensor).contains(stream.as_str()));
            if block == 0 || !enters || !separates(self.view, &outputs, stream, &lower) {
                return Err(refuse(&field, format!("names `{stream}`, which is not what enters block {block}")));
            }
        }
        Ok(())
    }

    /// Whether a node of the graph makes `value`, as floats and of `rank`, if one is given.
    fn computed(&self, field: &str, value: &str, rank: Option<usize>) -> Result<(), SiteError> {
        let problem = if self.view.producer(value).is_none() {
            "which no node of the graph makes"
        } else if self.view.facts.dtype(value).is_some_and(|dtype| !dtype.is_float()) {
            "which is not floating-point"
        } else if rank.is_some() && self.view.facts.rank(value) != rank {
            "which is not [batch, sequence, width]"
        } else {
            return Ok(());
        };
        Err(refuse(field, format!("names `{value}`, {problem}")))
    }

    fn width(&self, field: &str, said: usize, value: &str) -> Result<(), SiteError> {
        let found = self.view.width(value);
        if found == Some(said) && said > 0 {
            return Ok(());
        }
        let found = found.map_or("none that is known".to_string(), |width| width.to_string());
        Err(refuse(field, format!("is {said}; the width of `{value}` is {found}")))
    }
}
