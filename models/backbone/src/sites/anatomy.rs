//! Putting the found sites together: blocks, the streams between them, and the outputs a loss can be put on.

use std::collections::HashSet;

use super::branch::query_and_value;
use super::residual::{Residual, residuals};
use super::{Anatomy, Site, SiteError, SiteKind, View};
use crate::ir::Graph;
use crate::shape::Facts;

/// Finds blocks, sites and outputs of a transformer.
///
/// # Errors
/// When no site is found, a block lacks one, or no output carries the hidden state or logits.
pub fn dissect(graph: &Graph, facts: &Facts) -> Result<Anatomy, SiteError> {
    let view = View::new(graph, facts);
    let found = residuals(&view);
    if found.is_empty() {
        return Err(SiteError::NoSites);
    }
    let blocks = into_blocks(&found)?;
    let mut sites = Vec::new();
    let mut branches = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        for (kind, residual) in [(SiteKind::Attn, block.attn), (SiteKind::Mlp, block.mlp)] {
            sites.push((residual.tensor, named_site(&view, residual, index, kind)?));
        }
        let context = block.attn.projection.input(0).unwrap_or_default();
        branches.extend(query_and_value(&view, context, index));
    }
    sites.sort_by_key(|(tensor, _)| view.producers.get(tensor));
    let sites: Vec<Site> = sites.into_iter().map(|(_, site)| site).collect();
    let hidden = sites[0].width_out;
    let streams = (0..blocks.len()).map(|i| stream_into(&view, &blocks, &sites, i)).collect();
    let last = [blocks[blocks.len() - 1].attn.sum, blocks[blocks.len() - 1].mlp.sum];
    let (hidden_state, logits) = outputs(&view, hidden, &last)?;
    Ok(Anatomy { hidden, sites, branches, streams, hidden_state, logits })
}

struct Block<'r, 'a> {
    attn: &'r Residual<'a>,
    mlp: &'r Residual<'a>,
}

/// Groups sites into blocks: a second site of a kind opens the next block, so parallel blocks group as well.
fn into_blocks<'r, 'a>(found: &'r [Residual<'a>]) -> Result<Vec<Block<'r, 'a>>, SiteError> {
    let mut pairs: Vec<[Option<&Residual>; 2]> = vec![[None; 2]];
    for residual in found {
        let slot = usize::from(!residual.attends);
        if pairs.last().is_some_and(|pair| pair[slot].is_some()) {
            pairs.push([None; 2]);
        }
        if let Some(pair) = pairs.last_mut() {
            pair[slot] = Some(residual);
        }
    }
    let lopsided = |block, missing| SiteError::Lopsided {
        block,
        missing,
        found: found.len(),
        names: found.iter().map(|r| r.tensor).collect::<Vec<_>>().join(", "),
    };
    pairs
        .into_iter()
        .enumerate()
        .map(|(i, [attn, mlp])| {
            let attn = attn.ok_or_else(|| lopsided(i, "attention"))?;
            Ok(Block { attn, mlp: mlp.ok_or_else(|| lopsided(i, "MLP"))? })
        })
        .collect()
}

fn named_site(view: &View<'_>, residual: &Residual<'_>, block: usize, kind: SiteKind) -> Result<Site, SiteError> {
    let id = format!("{block}.{}", if kind == SiteKind::Attn { "attn" } else { "mlp" });
    let input = residual.projection.input(0).unwrap_or_default();
    let width = |value: &str| {
        view.width(value).ok_or_else(|| SiteError::Named {
            id: id.clone(),
            tensor: value.to_string(),
            problem: "has no known width".into(),
        })
    };
    let (width_in, width_out) = (width(input)?, width(residual.tensor)?);
    Ok(Site { id, block, kind, tensor: residual.tensor.into(), input: input.into(), width_in, width_out })
}

/// The value through which everything from the blocks below `index` reaches the rest of the graph.
fn stream_into(view: &View<'_>, blocks: &[Block<'_, '_>], sites: &[Site], index: usize) -> Option<String> {
    let below = &blocks[index.checked_sub(1)?];
    let lower: Vec<&str> = sites.iter().filter(|s| s.block < index).map(|s| s.tensor.as_str()).collect();
    // Sequential blocks end in the MLP's sum; parallel ones in a sum one step further.
    let mut candidates = vec![below.mlp.sum, below.attn.sum];
    for sum in [below.mlp.sum, below.attn.sum] {
        candidates.extend(view.readers(sum).filter(|n| n.is("Add")).filter_map(|n| n.output(0)));
    }
    candidates.into_iter().find(|cut| separates(view, cut, &lower)).map(str::to_string)
}

/// Whether the outputs no longer depend on `lower` once `cut` is given.
fn separates(view: &View<'_>, cut: &str, lower: &[&str]) -> bool {
    let mut pending: Vec<&str> = view.graph.outputs.iter().map(|p| p.name.as_str()).collect();
    let mut seen = HashSet::new();
    let mut reached = false;
    while let Some(value) = pending.pop() {
        if value == cut {
            reached = true;
            continue;
        }
        if !seen.insert(value) {
            continue;
        }
        if lower.contains(&value) {
            return false;
        }
        pending.extend(view.producer(value).into_iter().flat_map(|node| node.reads()));
    }
    reached
}

/// The hidden state and, for a causal language model, the logits.
fn outputs(view: &View<'_>, hidden: usize, last: &[&str]) -> Result<(String, Option<String>), SiteError> {
    let float_rank_3 =
        |name: &&str| view.facts.rank(name) == Some(3) && view.facts.dtype(name).is_some_and(|t| t.is_float());
    let names: Vec<&str> = view.graph.outputs.iter().map(|p| p.name.as_str()).collect();
    let after_last = |name: &&str| depends_on(view, name, last);
    let logits = names
        .iter()
        .copied()
        .filter(float_rank_3)
        .filter(after_last)
        .find(|name| view.width(name).is_some_and(|w| w != hidden));
    let state =
        names.iter().copied().filter(float_rank_3).filter(after_last).find(|name| view.width(name) == Some(hidden));
    let no_output = || SiteError::NoOutput { outputs: names.join(", ") };
    let state = state.or_else(|| final_norm(view, hidden, last)).ok_or_else(no_output)?;
    Ok((state.to_string(), logits.map(str::to_string)))
}

fn depends_on(view: &View<'_>, value: &str, on: &[&str]) -> bool {
    let mut pending = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        if on.contains(&value) {
            return true;
        }
        if seen.insert(value) {
            pending.extend(view.producer(value).into_iter().flat_map(|node| node.reads()));
        }
    }
    false
}

/// Where an export returns only logits or a pooled vector: the last value of the hidden state's shape that the final
/// residual sum reaches through norms.
fn final_norm<'a>(view: &View<'a>, hidden: usize, last: &[&'a str]) -> Option<&'a str> {
    const NORM: &[&str] = &[
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Sqrt",
        "Reciprocal",
        "ReduceMean",
        "Cast",
        "Identity",
        "LayerNormalization",
        "RMSNormalization",
        "Reshape",
    ];
    let mut derived: HashSet<&str> = last.iter().copied().collect();
    let mut state = None;
    for node in &view.graph.nodes {
        let data = |v: &&String| !v.is_empty() && view.facts.dtype(v).is_none_or(|t| t.is_float());
        let from_stream = node.inputs.iter().any(|v| derived.contains(v.as_str()));
        let closed = node.inputs.iter().filter(data).all(|v| derived.contains(v.as_str()) || view.is_constant(v));
        let Some(output) = node.output(0) else { continue };
        let is_sum = derived.contains(output);
        if is_sum || (from_stream && closed && node.domain.is_empty() && NORM.contains(&node.op.as_str())) {
            derived.insert(output);
            if view.facts.rank(output) == Some(3) && view.width(output) == Some(hidden) {
                state = Some(output);
            }
        }
    }
    state
}

/// Sites named by hand, for a graph whose structure is not recognised: `(id, tensor)` pairs such as `("0.attn", "h0")`.
///
/// # Errors
/// When a tensor does not exist, is not floating-point, or its width is unknown; when an id is not `<block>.<kind>`.
pub fn with_named_sites(graph: &Graph, facts: &Facts, named: &[(String, String)]) -> Result<Anatomy, SiteError> {
    let view = View::new(graph, facts);
    let mut sites = Vec::new();
    for (id, tensor) in named {
        let refuse =
            |problem: &str| SiteError::Named { id: id.clone(), tensor: tensor.clone(), problem: problem.into() };
        let (block, kind) =
            id.split_once('.').ok_or_else(|| refuse("has an id that is not <block>.attn or <block>.mlp"))?;
        let block = block.parse().map_err(|_| refuse("has an id whose block is not a number"))?;
        let kind = match kind {
            "attn" => SiteKind::Attn,
            "mlp" => SiteKind::Mlp,
            _ => return Err(refuse("has an id that ends in neither `attn` nor `mlp`")),
        };
        let node = view.producer(tensor).ok_or_else(|| refuse("is made by no node of the graph"))?;
        let width = view.width(tensor).ok_or_else(|| refuse("has no known width"))?;
        if facts.dtype(tensor).is_some_and(|t| !t.is_float()) {
            return Err(refuse("is not floating-point"));
        }
        let input = node.input(0).unwrap_or_default().to_string();
        let width_in = view.width(&input).unwrap_or(width);
        sites.push(Site { id: id.clone(), block, kind, tensor: tensor.clone(), input, width_in, width_out: width });
    }
    sites.sort_by_key(|site| view.producers.get(site.tensor.as_str()));
    let Some(last) = sites.last() else { return Err(SiteError::NoSites) };
    let blocks = sites.iter().map(|s| s.block).max().map_or(0, |b| b + 1);
    let (hidden_state, logits) = outputs(&view, last.width_out, &[last.tensor.as_str()])?;
    Ok(Anatomy {
        hidden: last.width_out,
        branches: Vec::new(),
        streams: vec![None; blocks],
        hidden_state,
        logits,
        sites,
    })
}
