//! Putting the found sites together: blocks, the streams between them, and the outputs a loss can be put on.

use std::collections::HashSet;

use super::branch::{is_projection_of, projection_behind, query_and_value};
use super::outputs::{Ends, Outputs};
use super::residual::{Residual, residual_sum, residuals};
use super::{Anatomy, MAX_BLOCKS, Site, SiteError, SiteKind, View};
use crate::ir::Graph;
use crate::shape::Facts;

/// Finds blocks, sites and outputs of a transformer whose token ids are the input `ids`.
///
/// # Errors
/// When no site is found, a block lacks one, or no output carries the hidden state or logits.
pub fn dissect(graph: &Graph, facts: &Facts, ids: Option<&str>) -> Result<Anatomy, SiteError> {
    let view = View::new(graph, facts);
    let found = residuals(&view);
    if found.is_empty() {
        return Err(SiteError::NoSites);
    }
    let mut placed = Vec::new();
    for (index, block) in into_blocks(&found)?.into_iter().enumerate() {
        for (kind, residual) in [(SiteKind::Attn, block.attn), (SiteKind::Mlp, block.mlp)] {
            placed.push(Placed { site: found_site(&view, residual, index, kind)?, sum: Some(residual.sum) });
        }
    }
    assemble(&view, placed, ids)
}

/// Sites named by hand, for a graph whose structure is not recognised: `(id, tensor)` pairs such as `("0.attn", "h0")`.
/// Naming those that [`dissect`] finds gives the same anatomy.
///
/// # Errors
/// When a tensor does not exist, is not floating-point, or its width is unknown; when an id is not `<block>.<kind>` or
/// two are the same; when no output carries the hidden state, which cannot be told from logits or a pooled vector alone
/// where the last block's tensors are not added to a residual stream.
pub fn with_named_sites(
    graph: &Graph,
    facts: &Facts,
    ids: Option<&str>,
    named: &[(String, String)],
) -> Result<Anatomy, SiteError> {
    let view = View::new(graph, facts);
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for (id, tensor) in named {
        let one = named_site(&view, id, tensor)?;
        if placed.iter().any(|other| other.site.id == one.site.id || other.site.tensor == one.site.tensor) {
            let problem = "is named twice, or its site is".into();
            return Err(SiteError::Named { id: id.clone(), tensor: tensor.clone(), problem });
        }
        placed.push(one);
    }
    if placed.is_empty() {
        return Err(SiteError::NoSites);
    }
    assemble(&view, placed, ids)
}

/// A site, and the residual sum its tensor goes into.
struct Placed<'a> {
    site: Site,
    sum: Option<&'a str>,
}

fn assemble(view: &View<'_>, mut placed: Vec<Placed<'_>>, ids: Option<&str>) -> Result<Anatomy, SiteError> {
    placed.sort_by_key(|one| view.producers.get(one.site.tensor.as_str()));
    let blocks = placed.iter().map(|one| one.site.block + 1).max().unwrap_or_default();
    let sums: Vec<Vec<&str>> = (0..blocks).map(|block| sums_of(&placed, block)).collect();
    let mut branches = Vec::new();
    for block in 0..blocks {
        let attn = placed.iter().find(|one| one.site.block == block && one.site.kind == SiteKind::Attn);
        branches.extend(attn.into_iter().flat_map(|one| query_and_value(view, &one.site.input, block)));
    }
    let sites: Vec<Site> = placed.into_iter().map(|one| one.site).collect();
    let streams = (0..blocks).map(|block| stream_into(view, sums.get(block.checked_sub(1)?)?, &sites, block)).collect();
    let last = Ends {
        sites: sites.iter().filter(|site| site.block + 1 == blocks).map(|site| site.tensor.as_str()).collect(),
        streams: sums.last().map(|sums| stream_out(view, sums)).unwrap_or_default(),
        width: sites.last().map_or(0, |site| site.width_out),
    };
    let Outputs { hidden_state, hidden, logits } = last.outputs(view, ids)?;
    Ok(Anatomy { hidden, sites, branches, streams, hidden_state, logits, causal: None })
}

/// The sums of a block's sites, the MLP's first; none unless each has one.
fn sums_of<'a>(placed: &[Placed<'a>], block: usize) -> Vec<&'a str> {
    let mut sites: Vec<&Placed<'_>> = placed.iter().filter(|one| one.site.block == block).collect();
    sites.sort_by_key(|one| one.site.kind != SiteKind::Mlp);
    let sums: Option<Vec<&str>> = sites.into_iter().map(|one| one.sum).collect();
    sums.unwrap_or_default()
}

struct Block<'r, 'a> {
    attn: &'r Residual<'a>,
    mlp: &'r Residual<'a>,
}

/// Groups sites into blocks: a second site of a kind opens the next block, so parallel blocks group as well.
fn into_blocks<'r, 'a>(found: &'r [Residual<'a>]) -> Result<Vec<Block<'r, 'a>>, SiteError> {
    let mut pairs: Vec<[Option<&Residual>; 2]> = vec![[None; 2]];
    for residual in without_inner(found) {
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

/// Where each attention is followed by the same number of other sites, as MobileBERT's by four MLPs and a projection to its
/// wider stream, the last of them counts.
fn without_inner<'r, 'a>(found: &'r [Residual<'a>]) -> Vec<&'r Residual<'a>> {
    let runs: Vec<&[Residual<'_>]> = found.chunk_by(|_, next| !next.attends).collect();
    let alike = runs.iter().all(|run| run.len() == runs[0].len() && run.len() > 2 && run[0].attends);
    if alike { runs.iter().flat_map(|run| [&run[0], &run[run.len() - 1]]).collect() } else { found.iter().collect() }
}

fn found_site(view: &View<'_>, residual: &Residual<'_>, block: usize, kind: SiteKind) -> Result<Site, SiteError> {
    let id = kind.id(block);
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

fn named_site<'a>(view: &View<'a>, id: &str, tensor: &str) -> Result<Placed<'a>, SiteError> {
    let refuse = |problem: &str| SiteError::Named { id: id.into(), tensor: tensor.into(), problem: problem.into() };
    let (block, kind) =
        id.split_once('.').ok_or_else(|| refuse("has an id that is not <block>.attn or <block>.mlp"))?;
    let block = block.parse().map_err(|_| refuse("has an id whose block is not a number"))?;
    let kind = match kind {
        "attn" => SiteKind::Attn,
        "mlp" => SiteKind::Mlp,
        _ => return Err(refuse("has an id that ends in neither `attn` nor `mlp`")),
    };
    if block >= MAX_BLOCKS {
        return Err(refuse(&format!("is of a block beyond the {MAX_BLOCKS}th")));
    }
    let node = view.producer(tensor).ok_or_else(|| refuse("is made by no node of the graph"))?;
    let tensor = node.outputs.iter().find(|output| *output == tensor).map_or("", String::as_str);
    let width_out = view.width(tensor).ok_or_else(|| refuse("has no known width"))?;
    if view.facts.dtype(tensor).is_some_and(|t| !t.is_float()) {
        return Err(refuse("is not floating-point"));
    }
    let projected = projection_behind(view, tensor).and_then(|projection| projection.input(0));
    let projected = projected.filter(|input| is_projection_of(view, tensor, input));
    let input = projected.or(node.input(0)).unwrap_or_default();
    let width_in = view.width(input).unwrap_or(width_out);
    let site =
        Site { id: kind.id(block), block, kind, tensor: tensor.into(), input: input.into(), width_in, width_out };
    Ok(Placed { site, sum: residual_sum(view, tensor) })
}

/// The value through which everything from the blocks below `index`, whose sums are `below`, reaches the rest of the graph.
fn stream_into(view: &View<'_>, below: &[&str], sites: &[Site], index: usize) -> Option<String> {
    let lower: Vec<&str> = sites.iter().filter(|s| s.block < index).map(|s| s.tensor.as_str()).collect();
    // Sequential blocks end in the MLP's sum; parallel ones in a sum one step further.
    let mut candidates = [stream_out(view, below), below.to_vec()].concat();
    for sum in below {
        candidates.extend(view.readers(sum).filter(|n| n.is("Add")).filter_map(|n| n.output(0)));
    }
    let outputs = view.outputs();
    candidates.into_iter().find(|cut| separates(view, &outputs, cut, &lower)).map(str::to_string)
}

/// Whether `outputs` no longer depend on `lower` once `cut` is given.
pub(super) fn separates(view: &View<'_>, outputs: &[&str], cut: &str, lower: &[&str]) -> bool {
    let mut pending = outputs.to_vec();
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

/// What leaves a block with these sums. Where attention and MLP are added to each other first, the stream joins a step later.
fn stream_out<'a>(view: &View<'a>, sums: &[&'a str]) -> Vec<&'a str> {
    match sums {
        [first, second] if first == second => {
            let joined: Vec<&str> = view.readers(first).filter(|n| n.is("Add")).filter_map(|n| n.output(0)).collect();
            if joined.is_empty() { sums.to_vec() } else { joined }
        }
        _ => sums.to_vec(),
    }
}
