"""Logistic regression on frozen mean-pooled features: SST-2 dev, TREC test, the project's field reports."""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import corpus
import teacher


def logistic_regression(x, y, x_test, y_test, decay=1e-4):
    """Test accuracy of a multinomial logistic regression on standardised features, L-BFGS to convergence."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_test = (torch.tensor((v - mean) / std, dtype=torch.float32) for v in (x, x_test))
    names = {label: i for i, label in enumerate(sorted(set(y)))}
    y, y_test = (torch.tensor([names[label] for label in v]) for v in (y, y_test))
    weight = torch.zeros(x.shape[1], len(names), requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weight + bias, y) + decay * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return ((x_test @ weight + bias).argmax(1) == y_test).float().mean().item()


def split(rows):
    return [text for text, _ in rows], [label for _, label in rows]


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("model", nargs="?", help="an ONNX encoder; without one, the teacher")
    ap.add_argument("tokenizer", nargs="?")
    ap.add_argument("--phrases", type=int, default=15000, help="random train phrases of SST-2 to fit on")
    a = ap.parse_args()
    torch.set_num_threads(1)
    if a.model:
        tok = Tokenizer.from_file(a.tokenizer)
        tok.no_padding()
        tok.enable_truncation(128)
    else:
        tok = teacher.tokenizer()
    run = teacher.session(Path(a.model) if a.model else teacher.FOLDER / "model_int8.onnx")
    sets = {
        "sst2 dev": (random.Random(0).sample(corpus.sst2(), a.phrases), corpus.sst2("dev"), 1e-4),
        "trec test": (corpus.trec(), corpus.trec("test"), 1e-4),
    }
    if corpus.REPORTS.exists():
        sets["field reports test"] = (corpus.reports(), corpus.reports("test"), 1e-2)
    for name, (train, test, decay) in sets.items():
        (texts, labels), (test_texts, test_labels) = split(train), split(test)
        x, x_test = (teacher.pooled(run, tok, t) for t in (texts, test_texts))
        print(f"{name}: {100 * logistic_regression(x, labels, x_test, test_labels, decay):.1f} %", flush=True)


if __name__ == "__main__":
    main()
