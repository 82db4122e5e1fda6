"""Mean-pooled features of all-MiniLM-L6-v2, cached per text, and its word embeddings."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from tokenizers import Tokenizer

from corpus import SHARED

FOLDER = SHARED / "models/minilm-l6"
WIDTH = 384


def tokenizer(max_length=128):
    tok = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tok.no_padding()
    tok.enable_truncation(max_length)
    return tok


def session(path, threads=1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def pooled(run, tok, texts, batch=64, progress=None):
    """Masked mean of `last_hidden_state` per text, [texts, hidden]; batches hold texts of similar length."""
    names = [i.name for i in run.get_inputs()]
    ids = [e.ids for e in tok.encode_batch(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = None
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        width = max(len(ids[i]) for i in rows)
        feed = {
            "input_ids": np.array([ids[i] + [0] * (width - len(ids[i])) for i in rows], np.int64),
            "attention_mask": np.array([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in rows], np.int64),
        }
        feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
        hidden = run.run(["last_hidden_state"], {n: feed[n] for n in names})[0]
        mask = feed["attention_mask"][..., None].astype(np.float32)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        out = np.zeros((len(ids), mean.shape[1]), np.float32) if out is None else out
        out[rows] = mean
        if progress and (start // batch) % 50 == 0:
            print(f"{progress}: {start}/{len(order)}", flush=True)
    return out


def features(name, texts, cache):
    """The teacher's features of `texts`, from `cache` if they were made before."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    path = Path(cache) / f"{name}-{digest}.npy"
    if not path.exists():
        Path(cache).mkdir(parents=True, exist_ok=True)
        np.save(path, pooled(session(FOLDER / "model_int8.onnx"), tokenizer(), texts, progress=name).astype(np.float16))
    return np.load(path).astype(np.float32)


def word_embeddings():
    """The embedding table, [vocabulary, 384], whichever way the file stores it."""
    graph = onnx.load(str(FOLDER / "model_int8.onnx")).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for name, table in stored.items():
        if table.ndim == 2 and table.shape == (30522, WIDTH):
            if table.dtype == np.float32:
                return table
            node = next(n for n in graph.node if n.op_type == "DequantizeLinear" and name in n.input)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            scale = stored[node.input[1]]
            shape = [1, 1]
            if scale.ndim:
                shape[axis] = -1
            return table.astype(np.float32) * scale.reshape(shape)
    raise SystemExit(f"{FOLDER}/model_int8.onnx: no [30522, {WIDTH}] embedding table among the initializers")


if __name__ == "__main__":
    import sys

    from corpus import sources

    for source, texts in sources().items():
        print(source, features(source, texts, sys.argv[1]).shape, flush=True)
