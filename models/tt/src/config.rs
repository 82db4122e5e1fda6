//! Everything that decides what an adapter is.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::form::Activation;
use crate::optim::Rule;

/// Largest accepted rank and bottleneck: a plan from elsewhere cannot ask for more memory than a device has.
const LARGEST_RANK: usize = 1024;
const LARGEST_BOTTLENECK: usize = 16_384;

/// What stands at a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Bottleneck of two tensor trains (FedTT).
    #[default]
    Tt,
    /// Bottleneck of two dense matrices.
    Dense,
    /// Low-rank branch beside the query and value projections.
    Lora,
    /// LoRA with A frozen at its start, so that averaging B averages the product.
    FfaLora,
    /// LoRA's branch with its update as one tensor train (`LoRETTA_rep`, Yang et al. 2024, arXiv 2402.11417).
    TtLora,
    /// The same with one core that trains, between two that stay as they start, orthonormal (LoRA-XS, Bałazy et al. 2024,
    /// arXiv 2405.17604, with a random basis). What trains is linear in the update, so that averages over clients are exact.
    TtCore,
}

/// Where bottleneck adapters stand in a block; branches have their own places, query and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sites {
    /// After the attention's output projection.
    Attention,
    /// After the MLP's output projection.
    Mlp,
    /// After both.
    #[default]
    Both,
}

/// How a bottleneck or a branch of a tensor train starts. LoRA always starts as the identity (B = 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Cores ~ N(0, 1) / sqrt(r_i) * s^(1/d) with s = sqrt(1 / (in + out)); biases ~ U(+-1 / sqrt(out)).
    Loretta,
    /// The same with the last core and the bias of `up` a tenth of that: all but the identity, and every core has a gradient
    /// from the first step on.
    Near,
    /// The same with the last core and the bias of `up` zero: the adapter starts as the identity, so that training
    /// starts from the backbone as it is and not from a noisy copy of it.
    #[default]
    Identity,
}

/// One rank for every inner bond of a train, or each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rank {
    /// The same everywhere.
    Uniform(usize),
    /// r_1 .. r_{d-1} of `down`; `up` takes them in reverse.
    PerBond(Vec<usize>),
}

/// Kind of the head's first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// Dense projection only.
    #[default]
    Dense,
    /// Tensor train hidden x hidden, activation, dense projection.
    Tt,
}

/// Settings of the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// with or without a tensor-train layer before the projection
    pub kind: HeadKind,
    /// after the tensor-train layer
    pub activation: Activation,
    /// of the tensor-train layer
    pub rank: Rank,
    /// of the tensor-train layer, cut at hidden|hidden; automatic if absent
    pub modes: Option<Vec<usize>>,
    /// of both layers
    pub bias: bool,
}

/// Settings of all adapters of a model and of its head. `AdapterConfig::default()` is FedTT: bottleneck
/// 64, rank 5, ReLU, biases, the identity start, after attention and MLP of every block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// what stands at a site
    pub method: Method,
    /// width between down and up
    pub bottleneck: usize,
    /// tensor-train ranks (default 5, in a branch 8), LoRA's rank (default 8) or that of a core between two (default 44)
    pub rank: Option<Rank>,
    /// modes of `down`, cut at in|bottleneck, or of a branch, cut at in|out; automatic if absent
    pub down_modes: Option<Vec<usize>>,
    /// modes of `up`, cut at bottleneck|out; the mirror image of `down_modes` if absent
    pub up_modes: Option<Vec<usize>>,
    /// between down and up
    pub activation: Activation,
    /// factor on what the adapter adds; default 1, for a branch 16 / rank, for a core between two 2
    pub scaling: Option<f32>,
    /// biases of down and up
    pub bias: bool,
    /// start values
    pub init: Init,
    /// where in a block
    pub sites: Sites,
    /// only the top blocks, this many; all if absent
    pub depth: Option<usize>,
    /// the task's head
    pub head: HeadConfig,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { kind: HeadKind::Dense, activation: Activation::Tanh, rank: Rank::Uniform(5), modes: None, bias: true }
    }
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            method: Method::Tt,
            bottleneck: 64,
            rank: None,
            down_modes: None,
            up_modes: None,
            activation: Activation::Relu,
            scaling: None,
            bias: true,
            init: Init::Identity,
            sites: Sites::Both,
            depth: None,
            head: HeadConfig::default(),
        }
    }
}

impl Rank {
    /// r_1 .. r_{d-1} for a train of `cores` cores; an error naming `field` if a list has another length.
    pub(crate) fn bonds(&self, cores: usize, field: &str) -> Result<Vec<usize>> {
        match self {
            Rank::Uniform(rank) => Ok(vec![*rank; cores - 1]),
            Rank::PerBond(ranks) if ranks.len() == cores - 1 => Ok(ranks.clone()),
            Rank::PerBond(ranks) => Err(Error::config(
                field,
                format!("{} ranks for a train of {cores} cores, which has {} inner bonds", ranks.len(), cores - 1),
            )),
        }
    }

    fn validate(&self, field: &str) -> Result<()> {
        let ranks = match self {
            Rank::Uniform(rank) => std::slice::from_ref(rank),
            Rank::PerBond(ranks) => ranks,
        };
        match ranks.iter().find(|r| !(1..=LARGEST_RANK).contains(*r)) {
            Some(rank) => Err(Error::config(field, format!("{rank} is not within 1..={LARGEST_RANK}"))),
            None => Ok(()),
        }
    }
}

impl AdapterConfig {
    /// Whether the method is a branch beside query and value (LoRA) rather than a bottleneck.
    pub fn is_branch(&self) -> bool {
        matches!(self.method, Method::Lora | Method::FfaLora | Method::TtLora | Method::TtCore)
    }

    /// The tensor-train ranks in force.
    pub fn tt_rank(&self) -> Rank {
        self.rank.clone().unwrap_or(Rank::Uniform(if self.is_branch() { 8 } else { 5 }))
    }

    /// The one rank in force of LoRA, or of the core between two others.
    pub fn matrix_rank(&self) -> Result<usize> {
        match self.rank {
            None if self.method == Method::TtCore => Ok(44),
            None => Ok(8),
            Some(Rank::Uniform(rank)) => Ok(rank),
            Some(Rank::PerBond(_)) => Err(Error::config("rank", "the method has one rank, not a list")),
        }
    }

    /// How the method's matrices are trained where nothing else is asked for.
    pub fn usual_rule(&self) -> Rule {
        if self.method == Method::TtCore { Rule::Muon } else { Rule::AdamW }
    }

    /// The adapters' full learning rate in federated rounds where nothing else is asked for.
    pub fn usual_rate(&self) -> f32 {
        match self.method {
            Method::Tt => 5e-3,
            Method::Lora | Method::FfaLora => 2e-3,
            Method::TtLora | Method::TtCore => 1e-2,
            Method::Dense => 1e-3,
        }
    }

    /// Checks every setting that can be judged without a backbone; errors name the field.
    pub fn validate(&self) -> Result<()> {
        if !(1..=LARGEST_BOTTLENECK).contains(&self.bottleneck) {
            let reason = format!("{} is not within 1..={LARGEST_BOTTLENECK}", self.bottleneck);
            return Err(Error::config("bottleneck", reason));
        }
        if let Some(rank) = &self.rank {
            rank.validate("rank")?;
        }
        self.head.rank.validate("head.rank")?;
        if matches!(self.method, Method::Lora | Method::FfaLora | Method::TtCore) {
            self.matrix_rank()?;
        }
        if let Some(scaling) = self.scaling
            && (!scaling.is_finite() || scaling == 0.0)
        {
            return Err(Error::config("scaling", format!("{scaling} is not a finite number other than 0")));
        }
        if self.depth == Some(0) {
            return Err(Error::config("depth", "0 leaves no block adapted; leave it out to adapt all"));
        }
        let lists = [("down_modes", &self.down_modes), ("up_modes", &self.up_modes), ("head.modes", &self.head.modes)];
        for (field, modes) in lists {
            if let Some(modes) = modes
                && (modes.len() < 2 || modes.contains(&0))
            {
                return Err(Error::config(field, "at least two modes are needed, each at least 1"));
            }
        }
        if self.up_modes.is_some() && self.down_modes.is_none() {
            return Err(Error::config("up_modes", "given without `down_modes`; give both, or `down_modes` alone"));
        }
        Ok(())
    }
}
