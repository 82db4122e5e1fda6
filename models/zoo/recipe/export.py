"""Writes the distilled encoder as ONNX: torch's TorchScript exporter, then large weights as int8 behind DequantizeLinear."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from student import Config, Encoder

OPSET = 17


def as_int8(model):
    """Matrices of `model` as int8. A weight of MatMul gets one scale per column. An embedding table is gathered as int8
    and its rows are dequantised after, with one scale per column, so that the table is never held in float."""
    graph = model.graph
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        readers = [n for n in graph.node if tensor.name in n.input]
        if values.ndim != 2 or values.size < 4096 or {n.op_type for n in readers} - {"MatMul", "Gather"}:
            continue
        scale = (np.abs(values).max(0) / 127).astype(np.float32)
        stored = np.round(values / scale).clip(-127, 127).astype(np.int8)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(stored, f"{name}_quantized"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero_point"))
        quantised = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
        for node in readers:
            at = list(graph.node).index(node)
            if node.op_type == "MatMul":
                graph.node.insert(at, helper.make_node("DequantizeLinear", quantised, [name], f"{name}_dq", axis=1))
            else:
                rows, out = f"{node.output[0]}_quantized", node.output[0]
                node.input[0], node.output[0] = quantised[0], rows
                dequantise = helper.make_node("DequantizeLinear", [rows, *quantised[1:]], [out], f"{name}_dq", axis=2)
                graph.node.insert(at + 1, dequantise)
    return model


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("distilled", help="folder that distill.py wrote")
    ap.add_argument("-o", "--out", required=True, help="folder for model.onnx, tokenizer.json and config.json")
    a = ap.parse_args()
    source, out = Path(a.distilled), Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    config = Config(**json.loads((source / "config.json").read_text()))
    model = Encoder(config).eval()
    model.load_state_dict(torch.load(source / "encoder.pt"))
    ids, mask = torch.randint(5, config.vocab_size, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    dynamic = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        model,
        (ids, mask),
        str(source / "float.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        dynamic_axes={name: dynamic for name in ("input_ids", "attention_mask", "last_hidden_state")},
        opset_version=OPSET,
        dynamo=False,
    )
    small = as_int8(onnx.load(str(source / "float.onnx")))
    onnx.checker.check_model(small, full_check=True)
    onnx.save(small, str(out / "model.onnx"))
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")
    fields = {"model_type": "bert", "hidden_act": "gelu", **vars(config), "pad_token_id": 0, "pooling": "mean"}
    (out / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
