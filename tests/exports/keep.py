#!/usr/bin/env python3
"""The exports kept beside this file, which `cargo test` reads (models/backbone/tests/exports.rs): run it to make them again.

    pip install torch transformers onnx onnxscript onnxruntime safetensors zstandard
    python keep.py [FAMILY...]

FAMILY.safetensors.zst holds what torch was fed and what came out (`input_ids`, `attention_mask`, `last_hidden_state`) and,
as bytes, the files that make.py's exporters wrote for that model, without the source lines they name. Weights are multiples of
1/8, so that they pack well. manifest.json says of each file which tensors are its sites, or the operator it is refused for.
"""

import json
import pathlib
import sys
import tempfile
import warnings

import numpy
import onnx
import onnxruntime
import onnxscript
import torch
import transformers
import zstandard
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from safetensors.numpy import save

import make

HERE = pathlib.Path(__file__).parent
OLD, SCRIPT, DYNAMO, PLAIN, NEW, _ = make.KINDS
KEPT = {
    "bert": [DYNAMO, NEW],
    "xlm-roberta": [NEW],
    "distilbert": [NEW],
    "electra": [OLD, NEW],
    "electra-factorised": [SCRIPT, DYNAMO],
    "mpnet": [SCRIPT, NEW],
    "deberta-v2": [OLD, NEW],
    "deberta-v2-conv": [PLAIN],
    "albert": [SCRIPT, NEW],
    "mobilebert-published": [SCRIPT, NEW],
    "modernbert": [SCRIPT, NEW],
    "t5-encoder": [SCRIPT, NEW],
    "gpt2": [NEW],
    "gpt-neo": [SCRIPT, DYNAMO],
    "gptj": [SCRIPT, NEW],
    "gpt-neox": [SCRIPT, NEW],
    "opt": [NEW],
    "opt-350m": [SCRIPT, DYNAMO],
    "bloom": [SCRIPT, NEW],
    "falcon": [SCRIPT, DYNAMO],
    "llama": [DYNAMO, NEW],
    "qwen3": [NEW],
    "mistral": [NEW],
    "phi": [DYNAMO],
    "phi3": [SCRIPT, NEW],
    "gemma2": [OLD, NEW],
    "gemma3": [SCRIPT, NEW],
    "cohere": [NEW],
    "starcoder2": [SCRIPT],
    "olmo2": [SCRIPT],
    "granite": [NEW],
}
# Made of a family's first file; the operator that a refusal has to name.
REFUSED = {"bert": {"fused": "com.microsoft::SkipLayerNormalization", "dynamic-int8": "DynamicQuantizeLinear"}}


def plain(path):
    """The file's bytes without what it says of the code it came from."""
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for about in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del about.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    return numpy.frombuffer(model.SerializeToString(), numpy.uint8)


def refused(path, folder):
    """What ONNX Runtime's own tools make of a file."""
    fused = optimize_model(str(path), "bert", num_heads=4, hidden_size=32)
    fused.save_model_to_file(str(folder / "fused.onnx"))
    quantize_dynamic(str(path), str(folder / "dynamic-int8.onnx"))


def keep(family):
    """Writes the family's file; returns what the manifest says of it."""
    model, base = make.build(family)
    for weight in base.parameters():
        weight.copy_((weight * 8).round() / 8)
    feeds = make.inputs(family, base.config)
    base.set_attn_implementation("eager")
    about, kept = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        tensors = make.reference(family, base, base, feeds, "last_hidden_state", folder / "reference.safetensors")
        for name in ("input_ids", "attention_mask", "last_hidden_state"):
            kept[name] = tensors[name]
        for kind in KEPT[family]:
            path = make.export(base, "last_hidden_state", kind, feeds, folder, "")
            points = make.probe(path, tensors, "last_hidden_state")["points"]
            about[path.stem] = {point: [found["tensor"] for found in points[point]] for point in points}
            kept[path.name] = plain(path)
        if family in REFUSED:
            refused(folder / next(name for name in kept if name.endswith(".onnx")), folder)
            for name, operator in REFUSED[family].items():
                about[name] = operator
                kept[f"{name}.onnx"] = plain(folder / f"{name}.onnx")
    packed = zstandard.ZstdCompressor(level=22).compress(save(kept))
    (HERE / f"{family}.safetensors.zst").write_bytes(packed)
    print(f"{family}: {len(packed)} bytes, {', '.join(about)}", flush=True)
    return about


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    path = HERE / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {"families": {}}
    for family in sys.argv[1:] or KEPT:
        manifest["families"][family] = keep(family)
        tools = (torch, transformers, onnx, onnxscript, onnxruntime)
        manifest["made with"] = {tool.__name__: tool.__version__ for tool in tools}
        path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
