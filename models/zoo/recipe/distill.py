"""Distils the encoder: its mean-pooled features, through a linear map that is then thrown away, imitate the teacher's."""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import corpus
import teacher
import vocabulary
from student import Config, Encoder, mean_pool


def batches(lengths, tokens, rng):
    """Shuffled batches of rows of similar length, at most `tokens` tokens each with padding."""
    order = np.argsort(lengths + rng.random(len(lengths)) * 2, kind="stable")
    cuts, start = [], 0
    for i in range(len(order) + 1):
        if i == len(order) or (i - start + 1) * lengths[order[start : i + 1]].max() > tokens:
            if i > start:
                cuts.append(order[start:i])
            start = i
    rng.shuffle(cuts)
    return cuts


def padded(ids, rows):
    width = max(len(ids[i]) for i in rows)
    x = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for k, i in enumerate(rows):
        x[k, : len(ids[i])] = torch.tensor(ids[i])
        mask[k, : len(ids[i])] = 1
    return x, mask


def targets(features, power):
    """Principal components of the teacher's features, each divided by its deviation to the `power`: with power 0 the few
    directions of topic drown the rest, with power 1 noise counts as much as meaning. Scaled to mean square 1."""
    centred = features - features.mean(0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    z = (centred @ vectors) * np.maximum(values, values.max() * 1e-4) ** (-power / 2)
    return torch.tensor(z / np.sqrt((z**2).mean()), dtype=torch.float32)


def similarity(x):
    x = nn.functional.normalize(x - x.mean(0), dim=-1)
    return x @ x.T


@dataclass
class Data:
    ids: list
    lengths: np.ndarray
    goal: torch.Tensor
    tokens: int
    similarity: float


def train(phase, data, encode, model, head, epochs, lr, rng, out):
    """One pass of warm-up and cosine decay over `epochs` epochs; `out` gets the weights every 200 steps."""
    params = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(params, lr=lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    plan = [rows for _ in range(epochs) for rows in batches(data.lengths, data.tokens, rng)]
    began, errors = time.process_time(), []
    for step, rows in enumerate(plan):
        for group in optimiser.param_groups:
            group["lr"] = lr * min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / len(plan))))
        x, mask = padded(data.ids, rows)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encode(x, mask)
        pooled, goal = mean_pool(hidden.float(), mask), data.goal[rows]
        mse = (head(pooled) - goal).square().mean()
        alike = (similarity(pooled) - similarity(goal)).square().mean() if len(rows) > 1 else torch.zeros(())
        optimiser.zero_grad()
        (mse + data.similarity * alike).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        errors.append(mse.item())
        if (step + 1) % 200 == 0 or step + 1 == len(plan):
            recent = np.mean(errors[-200:])
            print(f"{phase} {step + 1}/{len(plan)} mse {recent:.4f} {time.process_time() - began:.0f} s", flush=True)
            torch.save(model.state_dict(), out / "encoder.pt")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--cache", required=True, help="folder of the teacher's features")
    ap.add_argument("-o", "--out", required=True, help="folder for tokenizer.json, config.json and encoder.pt")
    ap.add_argument("--word-epochs", type=int, default=2, help="epochs on the embeddings alone, as a bag of words")
    ap.add_argument("--epochs", type=int, default=3, help="epochs on the whole encoder")
    ap.add_argument("--layers", type=int, default=3)
    ap.add_argument("--vocab", type=int, default=8000)
    ap.add_argument("--tokens", type=int, default=1536, help="tokens in a batch")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--power", type=float, default=0.5, help="how far the teacher's components are whitened")
    ap.add_argument("--similarity", type=float, default=1.0, help="weight of the in-batch similarity loss")
    ap.add_argument("--seed", type=int, default=7)
    a = ap.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)

    sources = corpus.sources()
    tok = vocabulary.train(sources, a.vocab)
    tok.save(str(out / "tokenizer.json"))
    tok.enable_truncation(128)
    config = Config(vocab_size=tok.get_vocab_size(), num_hidden_layers=a.layers)
    (out / "config.json").write_text(json.dumps(asdict(config)))
    texts = [t for found in sources.values() for t in found]
    goal = targets(np.concatenate([teacher.features(n, t, a.cache) for n, t in sources.items()]), a.power)
    ids = [e.ids for e in tok.encode_batch(texts)]
    lengths = np.array([len(i) for i in ids])
    print(f"{len(texts)} texts, {lengths.sum()} tokens, vocabulary {config.vocab_size}", flush=True)

    model = Encoder(config)
    model.words.weight.data.copy_(torch.tensor(vocabulary.embeddings(tok, config.hidden_size)))
    head = nn.Linear(config.hidden_size, goal.shape[1])
    data = Data(ids, lengths, goal, a.tokens, a.similarity)
    train("words", data, lambda x, mask: model.embed(x), model, head, a.word_epochs, 2 * a.lr, rng, out)
    train("encoder", data, model, model, head, a.epochs, a.lr, rng, out)


if __name__ == "__main__":
    main()
