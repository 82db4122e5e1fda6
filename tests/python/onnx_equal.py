"""Runs a model that was exported to ONNX in stock ONNX Runtime and compares it with what `fedtt-edge predict` said.

    onnx_equal.py MODEL.onnx PREDICTIONS.json [--tokenizer tokenizer.json]

PREDICTIONS.json is the envelope of `fedtt-edge predict --json`. Without a tokenizer texts are token ids.
"""

import argparse
import json
import sys

import numpy as np
import onnxruntime as ort


def encode(texts, tokenizer, longest):
    """Ids and segments of each text, or pair."""
    if tokenizer is None:
        return [([int(word) for word in text.split()][:longest], None) for text, _ in texts]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    encoded = [tokenizer.encode(text, pair) if pair else tokenizer.encode(text) for text, pair in texts]
    return [(e.ids, e.type_ids) for e in encoded]


def feeds(session, rows):
    """One batch, padded at the right."""
    length = max(len(ids) for ids, _ in rows)
    padded = lambda values, fill: list(values) + [fill] * (length - len(values))
    batch = {}
    for port in session.get_inputs():
        name = port.name.lower()
        if "mask" in name:
            values = [padded([1] * len(ids), 0) for ids, _ in rows]
        elif "type" in name or "segment" in name:
            values = [padded(types or [0] * len(ids), 0) for ids, types in rows]
        elif "position" in name:
            values = [list(range(length)) for _ in rows]
        else:
            values = [padded(ids, 0) for ids, _ in rows]
        kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(port.type, np.int64)
        batch[port.name] = np.array(values, dtype=kind)
    return batch


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("predictions")
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    said = json.load(open(args.predictions))["data"]["predictions"]
    session = ort.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    rows = encode([(p["text"], p.get("text_pair")) for p in said], args.tokenizer, int(meta["fedtt.max_length"]))
    [logits] = session.run(["logits"], feeds(session, rows))
    assert logits.dtype == np.float32, logits.dtype
    worst = 0.0
    if meta["fedtt.task"] == "classify":
        labels = json.loads(meta["fedtt.labels"])
        assert logits.shape == (len(said), len(labels)), logits.shape
        for row, prediction in zip(log_softmax(logits.astype(np.float64)), said):
            expected = np.log([prediction["probabilities"][label] for label in labels])
            worst = max(worst, np.abs(row - expected).max())
            assert labels[int(row.argmax())] == prediction["label"]
    elif meta["fedtt.task"] == "regress":
        scale = json.loads(meta["fedtt.scale"])
        for row, prediction in zip(logits, said):
            worst = max(worst, abs(float(row[0]) - (prediction["value"] - scale["mean"]) / scale["deviation"]))
    else:
        for (ids, _), row, prediction in zip(rows, log_softmax(logits.astype(np.float64)), said):
            losses = [-row[i, ids[i + 1]] for i in range(len(ids) - 1)]
            worst = max(worst, abs(np.mean(losses) - prediction["nats_per_token"]))
    spread = float(np.std(logits))
    print(json.dumps({"worst": worst, "spread": spread, "texts": len(said), "inputs": [p.name for p in session.get_inputs()]}))
    # The model says something, and says the same.
    sys.exit(0 if worst < 1e-4 and spread > 1e-3 else 1)


main()
