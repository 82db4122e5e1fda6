//! Texts to token ids.

use std::path::Path;

use tokenizers::{EncodeInput, Tokenizer, TruncationParams};

use crate::data::{Dataset, Example};

/// The ids of one text, specials included, not padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids; never empty.
    pub ids: Vec<i64>,
    /// 0 for the first text, 1 for the second of a pair.
    pub types: Vec<i64>,
}

/// Turns texts into ids, with the tokenizer's own padding and truncation overridden.
///
/// Without a tokenizer a text is its ids, separated by blanks.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Option<Tokenizer>,
    max_length: usize,
    pad_id: i64,
}

/// Why texts could not be turned into ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// The tokenizer file is not one.
    #[error("{name} is not a Hugging Face tokenizer.json: {message}")]
    Tokenizer {
        /// The file.
        name: String,
        /// What the reader said.
        message: String,
    },
    /// The longest length asked for leaves no room for a text.
    #[error("--max-length {max_length} leaves no room beside {special} special tokens")]
    TooShort {
        /// What was asked for.
        max_length: usize,
        /// Tokens the tokenizer adds round a pair.
        special: usize,
    },
    /// The longest length asked for is more than the backbone has positions for.
    #[error("a maximum length of {max_length} tokens is more than the {longest} this backbone has positions for")]
    TooLong {
        /// What was asked for.
        max_length: usize,
        /// What there can be.
        longest: usize,
    },
    /// One text could not be encoded.
    #[error("{name}:{line}: {message}")]
    Text {
        /// The file.
        name: String,
        /// Counting from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

const PAD_TOKENS: [&str; 4] = ["[PAD]", "<pad>", "<|endoftext|>", "<|pad|>"];

impl TextEncoder {
    /// Reads a `tokenizer.json`; `name` is for messages.
    ///
    /// # Errors
    /// When it is not one, or `max_length` is too short for its special tokens.
    pub fn new(name: &Path, json: &[u8], max_length: usize) -> Result<Self, TokenizeError> {
        let refuse = |message: String| TokenizeError::Tokenizer { name: name.display().to_string(), message };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| refuse(e.to_string()))?;
        let special = tokenizer.get_post_processor().map_or(0, |p| tokenizers::PostProcessor::added_tokens(p, true));
        if max_length <= special + 1 {
            return Err(TokenizeError::TooShort { max_length, special });
        }
        let known = PAD_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
        let pad_id = i64::from(tokenizer.get_padding().map(|p| p.pad_id).or(known).unwrap_or_default());
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        Ok(TextEncoder { tokenizer: Some(tokenizer), max_length, pad_id })
    }

    /// For a backbone without a tokenizer: texts are ids.
    pub fn ids_only(max_length: usize) -> Self {
        TextEncoder { tokenizer: None, max_length, pad_id: 0 }
    }

    /// The id that fills a row up; masked, so any id of the vocabulary serves.
    pub fn pad_id(&self) -> i64 {
        self.pad_id
    }

    /// Longest row, in tokens.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One row per example, cut to the longest length (the longer text of a pair first).
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn rows(&self, data: &Dataset) -> Result<Vec<Tokens>, TokenizeError> {
        let mut tokenizer = self.tokenizer.clone();
        if let Some(tokenizer) = &mut tokenizer {
            let truncation = TruncationParams { max_length: self.max_length, ..TruncationParams::default() };
            // The length was checked against the special tokens when the tokenizer was read.
            let _ = tokenizer.with_truncation(Some(truncation));
        }
        data.examples.iter().map(|e| self.encode(tokenizer.as_ref(), data, e).map(|(tokens, _)| tokens)).collect()
    }

    /// Rows for language modelling: a text longer than the longest length becomes several, each with the tokens the
    /// tokenizer puts first. Rows of a single token, which predict nothing, are left out.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn windows(&self, data: &Dataset) -> Result<Vec<Tokens>, TokenizeError> {
        let mut rows = Vec::new();
        for example in &data.examples {
            let (tokens, special) = self.encode(self.tokenizer.as_ref(), data, example)?;
            let lead = special.iter().take_while(|&&s| s).count().min(tokens.ids.len().saturating_sub(1));
            let (prefix, content) = tokens.ids.split_at(lead);
            for part in content.chunks(self.max_length - lead.min(self.max_length - 1)) {
                let ids = [prefix, part].concat();
                if ids.len() > 1 {
                    rows.push(Tokens { types: vec![0; ids.len()], ids });
                }
            }
        }
        Ok(rows)
    }

    /// The tokens, and which of them the tokenizer added.
    fn encode(
        &self,
        tokenizer: Option<&Tokenizer>,
        data: &Dataset,
        example: &Example,
    ) -> Result<(Tokens, Vec<bool>), TokenizeError> {
        let fail = |message: String| TokenizeError::Text { name: data.name.clone(), line: example.line, message };
        let Some(tokenizer) = tokenizer else { return parse_ids(example, self.max_length).map_err(fail) };
        let input: EncodeInput<'_> = match &example.pair {
            Some(pair) => (example.text.as_str(), pair.as_str()).into(),
            None => example.text.as_str().into(),
        };
        let encoding = tokenizer.encode_fast(input, true).map_err(|e| fail(e.to_string()))?;
        let widen = |v: &[u32]| v.iter().map(|&i| i64::from(i)).collect::<Vec<_>>();
        let special = encoding.get_special_tokens_mask().iter().map(|&m| m == 1).collect();
        if encoding.is_empty() {
            return Ok((Tokens { ids: vec![self.pad_id], types: vec![0] }, vec![false]));
        }
        Ok((Tokens { ids: widen(encoding.get_ids()), types: widen(encoding.get_type_ids()) }, special))
    }
}

fn parse_ids(example: &Example, max_length: usize) -> Result<(Tokens, Vec<bool>), String> {
    let parse = |text: &str, kind: i64| {
        text.split_whitespace()
            .map(|word| {
                let id = word.parse::<i64>().ok().filter(|&id| id >= 0);
                id.map(|id| (id, kind)).ok_or_else(|| {
                    format!(
                        "the backbone has no tokenizer, so a text is token ids separated by blanks; {word:?} is none"
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let mut ids = parse(&example.text, 0)?;
    ids.extend(parse(example.pair.as_deref().unwrap_or_default(), 1)?);
    if ids.is_empty() {
        return Err("holds no token ids".to_string());
    }
    ids.truncate(max_length);
    let special = vec![false; ids.len()];
    let (ids, types) = ids.into_iter().unzip();
    Ok((Tokens { ids, types }, special))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// WordPiece with `[CLS] A [SEP] B [SEP]`, and the fixed padding and truncation that some files carry.
    const TINY: &str = r###"{
        "version": "1.0", "added_tokens": [],
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]"},
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "##c": 5, "d": 6, "[PAD]": 7}}
    }"###;

    fn encoder(max_length: usize) -> TextEncoder {
        TextEncoder::new(Path::new("tokenizer.json"), TINY.as_bytes(), max_length).unwrap()
    }

    fn data(texts: &[(&str, Option<&str>)]) -> Dataset {
        let example = |(i, (text, pair)): (usize, &(&str, Option<&str>))| Example {
            text: text.to_string(),
            pair: pair.map(str::to_string),
            label: None,
            line: i + 1,
        };
        Dataset { name: "f".into(), examples: texts.iter().enumerate().map(example).collect() }
    }

    #[test]
    fn padding_and_truncation_of_the_file_are_overridden() {
        let rows = encoder(6).rows(&data(&[("a bc d", None), ("a a a a a a a", None), ("", None)])).unwrap();
        assert_eq!(rows[0].ids, [1, 3, 4, 5, 6, 2]);
        assert_eq!(rows[1].ids, [1, 3, 3, 3, 3, 2]);
        assert_eq!(rows[2].ids, [1, 2]);
        assert_eq!(encoder(6).pad_id(), 7);
    }

    #[test]
    fn pairs_have_types_and_share_the_room() {
        let rows = encoder(7).rows(&data(&[("a a a a a", Some("b"))])).unwrap();
        assert_eq!(rows[0].ids, [1, 3, 3, 3, 2, 4, 2]);
        assert_eq!(rows[0].types, [0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn long_texts_become_windows_with_the_leading_special() {
        let rows = encoder(5).windows(&data(&[("a b a b d", None)])).unwrap();
        let ids: Vec<_> = rows.into_iter().map(|r| r.ids).collect();
        assert_eq!(ids, [vec![1, 3, 4, 3, 4], vec![1, 6, 2]]);
    }

    #[test]
    fn without_a_tokenizer_texts_are_ids() {
        let encoder = TextEncoder::ids_only(4);
        assert_eq!(encoder.rows(&data(&[("5 6 7 8 9", None)])).unwrap()[0].ids, [5, 6, 7, 8]);
        let message = encoder.rows(&data(&[("1", None), ("two", None)])).unwrap_err().to_string();
        assert!(message.starts_with("f:2: ") && message.contains("no tokenizer"), "{message}");
    }

    #[test]
    fn refusals() {
        let error = TextEncoder::new(Path::new("t.json"), b"{}", 8).unwrap_err().to_string();
        assert!(error.contains("t.json is not a Hugging Face tokenizer.json"), "{error}");
        let error = TextEncoder::new(Path::new("t.json"), TINY.as_bytes(), 4).unwrap_err().to_string();
        assert!(error.contains("3 special tokens"), "{error}");
    }
}
