"""The encoder's own WordPiece vocabulary, and where its embeddings start."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import teacher

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Field reports are few but are what the encoder meets first: their words count as often as a larger corpus's.
WEIGHT = {"reports": 12, "spliced": 0}


def train(sources, size):
    """A lower-casing WordPiece tokenizer trained on `sources`: name -> texts."""
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    texts = [t for name, texts in sources.items() for t in texts * WEIGHT.get(name, 1)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=SPECIAL, limit_alphabet=100, show_progress=False
    )
    tok.train_from_iterator(texts, trainer)
    cls, sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return tok


def embeddings(tok, width):
    """Rows for `tok`'s tokens, [vocabulary, width]: the teacher's word embeddings of each token's string, averaged over
    its pieces and projected on the principal components of all rows; unit variance over the table."""
    table, theirs = teacher.word_embeddings(), teacher.tokenizer()
    rows = np.zeros((tok.get_vocab_size(), table.shape[1]), np.float32)
    for token, row in tok.get_vocab().items():
        known = theirs.token_to_id(token)
        ids = [known] if known is not None else theirs.encode(token.removeprefix("##"), add_special_tokens=False).ids
        rows[row] = table[ids].mean(0) if ids else table.mean(0)
    rows -= rows.mean(0)
    _, _, components = np.linalg.svd(rows, full_matrices=False)
    projected = rows @ components[:width].T
    return projected / projected.std()
