//! What is embedded as a default: a small English text encoder and a labelled text set to fine-tune it on.
//!
//! [`encoder`] is a 3-layer BERT of hidden size 128, distilled from all-MiniLM-L6-v2 by the recipe in `recipe/`.
//! [`field_reports`] are short reports from edge sites, written for this project; `data/README.md` describes them.

#![forbid(unsafe_code)]

mod reports;

pub use reports::{FIELD_REPORTS_TSV, LABELS, Report, SITES, Split, field_reports};

/// The files of a backbone, as they lie in its folder.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// The ONNX graph: inputs `input_ids` and `attention_mask` (int64, `[batch, sequence]`), output `last_hidden_state`
    /// (float32, `[batch, sequence, hidden]`). Large weights are int8 behind `DequantizeLinear`.
    pub model: &'static [u8],
    /// `tokenizer.json` in Hugging Face's format, UTF-8.
    pub tokenizer: &'static [u8],
    /// `config.json`: the shape under Hugging Face's names, and `pooling`.
    pub config: &'static [u8],
    /// Licence and origin of the weights.
    pub license: &'static str,
}

/// SHA-256 of the encoder's model followed by its tokenizer, in lower-case hexadecimal: what names it in plans.
pub const ENCODER_SHA256: &str = "511342da8aefa69f5068cd82e6fd22688dea888e5118ae7be08fa301f3df56ad";

/// The embedded encoder: hidden 128, 3 blocks, 4 heads, at most 128 positions, mean pooling.
pub fn encoder() -> Files {
    Files {
        model: include_bytes!("../encoder/model.onnx"),
        tokenizer: include_bytes!("../encoder/tokenizer.json"),
        config: include_bytes!("../encoder/config.json"),
        license: include_str!("../encoder/LICENSE"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_encoder_fits_its_three_megabytes() {
        let files = encoder();
        let bytes = files.model.len() + files.tokenizer.len() + files.config.len() + files.license.len();
        assert!(bytes <= 3_000_000, "{bytes} bytes");
    }

    #[test]
    fn the_encoder_is_what_its_hash_says() {
        let files = encoder();
        let digest = Sha256::new().chain_update(files.model).chain_update(files.tokenizer).finalize();
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, ENCODER_SHA256);
    }

    #[test]
    fn config_and_tokenizer_agree() {
        let files = encoder();
        let config: serde_json::Value = serde_json::from_slice(files.config).unwrap();
        let tokenizer: serde_json::Value = serde_json::from_slice(files.tokenizer).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        assert_eq!(config["vocab_size"].as_u64().unwrap(), vocabulary.len() as u64);
        assert!(vocabulary.len() <= 8192);
        assert_eq!(vocabulary["[PAD]"], config["pad_token_id"]);
        assert_eq!(config["pooling"], "mean");
        assert_eq!(tokenizer["normalizer"]["lowercase"], true);
        assert!(tokenizer["truncation"].is_null() && tokenizer["padding"].is_null());
    }

    #[test]
    fn the_licence_names_teacher_and_terms() {
        let text = encoder().license;
        assert!(text.contains("Apache License, Version 2.0") && text.contains("all-MiniLM-L6-v2"));
    }
}
