#!/usr/bin/env python3
"""Tiny random transformers, exported to ONNX by torch's own exporters, with torch-autograd references.

    pip install torch transformers onnx onnxscript onnxruntime safetensors
    python make.py OUT [--families bert,phi3] [--kinds dynamo,...] [--no-heads]

No network: every model is built from its configuration class with random weights (fixed seed): 2 layers, 4 heads, hidden
32, intermediate 64, vocabulary 101, 64 positions, weight std 0.2.

    OUT/<family>/torchscript-eager-opset14.onnx    torch.onnx.export(dynamo=False), eager attention
    OUT/<family>/torchscript-sdpa-opset17.onnx     the same with scaled_dot_product_attention where the family has it
    OUT/<family>/dynamo-opset20.onnx               torch.onnx.export(dynamo=True), default opset
    OUT/<family>/dynamo-unoptimized-opset20.onnx   the same with optimize=False
    OUT/<family>/dynamo-opset23.onnx               the same at the opset that brought Attention and RMSNormalization
    OUT/<family>/optimum-opset18.onnx              --kinds optimum, with optimum-onnx installed (it asks for transformers 4)
    OUT/<family>/<exporter>-<head>.onnx            with the task head on: `classifier` (3 labels) or `causal-lm` (logits)
    OUT/<family>/reference.safetensors             inputs, outputs and gradients of the backbone, from torch
    OUT/<family>/reference-causal-lm.safetensors   the same for the logits of a `causal-lm` file
    OUT/<family>/probes.json                       per file: the ONNX tensors equal to h at each probe point

reference.safetensors holds `input_ids`, `attention_mask` [3, 7] (row 0 full, row 1 right-padded by 2, row 2 left-padded by
3), `token_type_ids`, `position_ids`, `R` and `last_hidden_state` [3, 7, H]; loss = sum(last_hidden_state * R * mask).
Probe point P is `<layer>.attn` (attention output projection) or `<layer>.mlp` (second MLP projection): its output h becomes
h + d. Prefix `zero.` has d = 0, `nonzero.` d = `nonzero.probe.P`: `.loss`, `.last_hidden_state`, `.h.P`, `.grad.P`.
"""

import argparse
import json
import pathlib
import tempfile
import traceback
import warnings

import numpy
import onnx
import onnxruntime
import torch
import transformers
from safetensors.numpy import save_file

LAYERS = 2
SEED = 20
SMALL = dict(
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    hidden_size=32,
    intermediate_size=64,
    vocab_size=101,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=2,
    eos_token_id=3,
)
GQA = dict(num_key_value_heads=2)
BERT = ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense")
LLAMA = ("layers.{}.self_attn.o_proj", "layers.{}.mlp.down_proj")
NEOX = ("layers.{}.attention.dense", "layers.{}.mlp.dense_4h_to_h")

# family: (model type, head, settings, (attention output projection, second MLP projection))
FAMILIES = {
    "bert": ("bert", "classifier", {}, BERT),
    "roberta": ("roberta", "classifier", dict(pad_token_id=1), BERT),
    "xlm-roberta": ("xlm-roberta", "classifier", dict(pad_token_id=1), BERT),
    "distilbert": (
        "distilbert",
        "classifier",
        dict(n_layers=LAYERS, n_heads=4, dim=32, hidden_dim=64),
        ("transformer.layer.{}.attention.out_lin", "transformer.layer.{}.ffn.lin2"),
    ),
    "electra": ("electra", "classifier", dict(embedding_size=32), BERT),
    "electra-factorised": ("electra", "classifier", dict(embedding_size=16), BERT),
    "mpnet": (
        "mpnet",
        "classifier",
        dict(pad_token_id=1),
        ("encoder.layer.{}.attention.attn.o", "encoder.layer.{}.output.dense"),
    ),
    "deberta-v2": (
        "deberta-v2",
        "classifier",
        dict(relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], share_att_key=True,
             norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0, pooler_hidden_size=32),
        BERT,
    ),
    "deberta-v2-conv": (
        "deberta-v2",
        "classifier",
        dict(relative_attention=True, position_buckets=-1, pos_att_type=["p2c", "c2p"], conv_kernel_size=3,
             conv_act="gelu", pooler_hidden_size=32),
        BERT,
    ),
    "deberta": (
        "deberta",
        "classifier",
        dict(relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=32),
        BERT,
    ),
    "albert": (
        "albert",
        "classifier",
        dict(embedding_size=16),
        ("encoder.albert_layer_groups.0.albert_layers.0.attention.dense",
         "encoder.albert_layer_groups.0.albert_layers.0.ffn_output"),
    ),
    "mobilebert": (
        "mobilebert",
        "classifier",
        dict(embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32, use_bottleneck=False,
             num_feedforward_networks=1),
        BERT,
    ),
    "mobilebert-published": (
        "mobilebert",
        "classifier",
        dict(embedding_size=16, intra_bottleneck_size=16, key_query_shared_bottleneck=True, num_feedforward_networks=4,
             true_hidden_size=16, intermediate_size=32),
        ("encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.bottleneck.dense"),
    ),
    "modernbert": (
        "modernbert",
        "classifier",
        dict(local_attention=4, global_attn_every_n_layers=2, cls_token_id=2, sep_token_id=3),
        ("layers.{}.attn.Wo", "layers.{}.mlp.Wo"),
    ),
    "t5-encoder": (
        "t5",
        None,
        dict(d_model=32, d_ff=64, d_kv=8, num_layers=LAYERS, num_heads=4),
        ("encoder.block.{}.layer.0.SelfAttention.o", "encoder.block.{}.layer.1.DenseReluDense.wo"),
    ),
    "gpt2": (
        "gpt2",
        "causal-lm",
        dict(n_layer=LAYERS, n_head=4, n_embd=32, n_inner=64, n_positions=64),
        ("h.{}.attn.c_proj", "h.{}.mlp.c_proj"),
    ),
    "opt": (
        "opt",
        "causal-lm",
        dict(ffn_dim=64, word_embed_proj_dim=32, pad_token_id=1),
        ("decoder.layers.{}.self_attn.out_proj", "decoder.layers.{}.fc2"),
    ),
    "opt-350m": (
        "opt",
        "causal-lm",
        dict(ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False, pad_token_id=1),
        ("decoder.layers.{}.self_attn.out_proj", "decoder.layers.{}.fc2"),
    ),
    "llama": ("llama", "causal-lm", GQA, LLAMA),
    "llama-tied": ("llama", "causal-lm", dict(tie_word_embeddings=True), LLAMA),
    "qwen2": ("qwen2", "causal-lm", GQA, LLAMA),
    "qwen3": ("qwen3", "causal-lm", dict(head_dim=8, **GQA), LLAMA),
    "mistral": ("mistral", "causal-lm", dict(sliding_window=4, **GQA), LLAMA),
    "phi3": ("phi3", "causal-lm", GQA, LLAMA),
    "gemma": ("gemma", "causal-lm", dict(head_dim=8, **GQA), LLAMA),
    "gemma2": ("gemma2", "causal-lm", dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=4, **GQA), LLAMA),
    "gemma3": (
        "gemma3_text",
        "causal-lm",
        dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"], **GQA),
        LLAMA,
    ),
    "cohere": ("cohere", "causal-lm", GQA, LLAMA),
    "phi": ("phi", "causal-lm", {}, ("layers.{}.self_attn.dense", "layers.{}.mlp.fc2")),
    "gpt-neo": (
        "gpt_neo",
        "causal-lm",
        dict(num_layers=LAYERS, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=4),
        ("h.{}.attn.attention.out_proj", "h.{}.mlp.c_proj"),
    ),
    "gpt-neox": ("gpt_neox", "causal-lm", {}, NEOX),
    "gpt-neox-sequential": ("gpt_neox", "causal-lm", dict(use_parallel_residual=False), NEOX),
    "falcon": (
        "falcon",
        "causal-lm",
        dict(new_decoder_architecture=False, multi_query=True, parallel_attn=True, bias=False, ffn_hidden_size=64),
        ("h.{}.self_attention.dense", "h.{}.mlp.dense_4h_to_h"),
    ),
    "bloom": (
        "bloom",
        "causal-lm",
        dict(n_layer=LAYERS, n_head=4),
        ("h.{}.self_attention.dense", "h.{}.mlp.dense_4h_to_h"),
    ),
    "gptj": (
        "gptj",
        "causal-lm",
        dict(n_layer=LAYERS, n_head=4, n_embd=32, n_inner=64, n_positions=64, rotary_dim=4),
        ("h.{}.attn.out_proj", "h.{}.mlp.fc_out"),
    ),
    "starcoder2": ("starcoder2", "causal-lm", GQA, ("layers.{}.self_attn.o_proj", "layers.{}.mlp.c_proj")),
    "olmo2": ("olmo2", "causal-lm", GQA, LLAMA),
    "stablelm": ("stablelm", "causal-lm", GQA, LLAMA),
    "granite": (
        "granite",
        "causal-lm",
        dict(residual_multiplier=0.5, embedding_multiplier=2.0, attention_multiplier=0.3, logits_scaling=2.0, **GQA),
        LLAMA,
    ),
}
# kind: (attention, opset; none = the exporter's default)
KINDS = {
    "torchscript-eager-opset14": ("eager", 14),
    "torchscript-sdpa-opset17": ("sdpa", 17),
    "dynamo": ("sdpa", None),
    "dynamo-unoptimized": ("sdpa", None),
    "dynamo-opset23": ("sdpa", 23),
    "optimum": (None, None),
}


class OneOutput(torch.nn.Module):
    """What is exported: token ids and mask in, the last hidden state (or the logits) out, no key-value cache."""

    def __init__(self, model, output):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids, attention_mask):
        cache = {"use_cache": False} if getattr(self.model.config, "use_cache", None) is not None else {}
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask, **cache), self.output)


def build(family):
    """The family's model with its head (or without one), random weights, and its backbone."""
    kind, head, settings, _ = FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind, **{**SMALL, "num_labels": 3, **settings})
    loader = {
        "classifier": transformers.AutoModelForSequenceClassification,
        "causal-lm": transformers.AutoModelForCausalLM,
        None: transformers.T5EncoderModel,
    }[head]
    model = loader._from_config(config) if head is None else loader.from_config(config)
    model = model.float().eval()
    with torch.no_grad():
        torch.manual_seed(SEED)
        for name, p in sorted(model.named_parameters()):
            gain = p.dim() == 1 and "bias" not in name and p.mean() > 0.5
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if gain else 0.0))
    model.requires_grad_(False)
    return model, (model if head is None else model.base_model)


def inputs(family, config):
    pad = config.pad_token_id
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    mask[2, :3] = 0
    torch.manual_seed(SEED + 1)
    ids = torch.randint(4, config.vocab_size, (3, 7)) * mask + pad * (1 - mask)
    positions = torch.arange(7).repeat(3, 1)
    if FAMILIES[family][0] == "opt":
        positions = mask.cumsum(1) * mask - 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), "position_ids": positions}


def probe_points(family):
    attn, mlp = FAMILIES[family][3]
    return {f"{i}.{k}": path.format(i) for i in range(LAYERS) for k, path in (("attn", attn), ("mlp", mlp))}


def run_with_probes(model, base, points, feeds, probes, output):
    """The output and h at each point, with `probes` added to h. A module shared by the layers has one point per call."""
    seen, handles = {}, []
    for path in dict.fromkeys(points.values()):
        names = iter([p for p, q in points.items() if q == path])

        def hook(_module, _args, h, names=names):
            point = next(names)
            seen[point] = h.detach().reshape(probes[point].shape).clone()  # opt's MLP works on [batch * sequence, H]
            return h + probes[point].reshape(h.shape)

        handles.append(base.get_submodule(path).register_forward_hook(hook))
    out = OneOutput(model, output)(feeds["input_ids"], feeds["attention_mask"])
    for handle in handles:
        handle.remove()
    return out, seen


def reference(family, model, base, feeds, output, path):
    """Writes the reference file; returns its tensors."""
    points = probe_points(family)
    mask = feeds["attention_mask"][..., None]
    like = lambda n: torch.randn(3, 7, n)
    torch.manual_seed(SEED + 2)
    modules = {p: base.get_submodule(path) for p, path in points.items()}
    noise = {p: like(getattr(m, "out_features", None) or m.nf) * 0.1 for p, m in modules.items()}
    with torch.no_grad():
        r = like(OneOutput(model, output)(feeds["input_ids"], feeds["attention_mask"]).shape[-1])
    t = {**feeds, "R": r}
    for prefix in ("zero", "nonzero"):
        d = {p: (noise[p] if prefix == "nonzero" else torch.zeros_like(noise[p])).requires_grad_() for p in points}
        out, h = run_with_probes(model, base, points, feeds, d, output)
        loss = (out * r * mask).sum()
        grads = torch.autograd.grad(loss, list(d.values()))
        t[f"{prefix}.loss"] = loss.reshape(1)
        t[f"{prefix}.last_hidden_state"] = out
        for (p, probe), grad in zip(d.items(), grads):
            t[f"{prefix}.h.{p}"] = h[p]
            t[f"{prefix}.grad.{p}"] = grad
            if prefix == "nonzero":
                t[f"{prefix}.probe.{p}"] = probe
    t["last_hidden_state"] = t["zero.last_hidden_state"]
    t = {k: v.detach().contiguous().numpy().copy() for k, v in t.items()}
    about = {"family": family, "loss": "sum(last_hidden_state * R * attention_mask[..., None])", "probes": points}
    save_file(t, path, metadata={"about": json.dumps(about)})
    return t


def export(model, output, kind, feeds, folder, suffix):
    """Exports one file; returns its path."""
    args = (feeds["input_ids"], feeds["attention_mask"])
    names = dict(input_names=["input_ids", "attention_mask"], output_names=[output])
    wrapped = OneOutput(model, output).eval()
    if kind == "optimum":
        return export_with_optimum(model, output, folder, suffix)
    attention, opset = KINDS[kind]
    try:
        model.set_attn_implementation(attention)
    except ValueError:  # the family has no such attention
        model.set_attn_implementation("eager")
    if kind.startswith("dynamo"):
        axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
        how = dict(verbose=False, optimize="unoptimized" not in kind, dynamic_shapes=(axes, axes), opset_version=opset)
        program = torch.onnx.export(wrapped, args, dynamo=True, **how, **names)
        path = folder / f"{kind.split('-opset')[0]}-opset{program.model.opset_imports['']}{suffix}.onnx"
        program.save(path, external_data=False)
        return path
    path = folder / f"{kind}{suffix}.onnx"
    axes = {n: {0: "batch", 1: "sequence"} for n in ("input_ids", "attention_mask", output)}
    if suffix == "-classifier":
        axes[output] = {0: "batch"}
    with torch.no_grad():
        torch.onnx.export(wrapped, args, path, dynamo=False, opset_version=opset, dynamic_axes=axes, **names)
    return path


def export_with_optimum(model, output, folder, suffix):
    from optimum.exporters.onnx import onnx_export_from_model

    tasks = {"": "feature-extraction", "-classifier": "text-classification", "-causal-lm": "text-generation"}
    with tempfile.TemporaryDirectory() as scratch:
        onnx_export_from_model(model, scratch, task=tasks[suffix], do_validation=False, no_post_process=True)
        graph = onnx.load(pathlib.Path(scratch) / "model.onnx")
    path = folder / f"optimum-opset{opset_of(graph)}{suffix}.onnx"
    onnx.save(graph, path)
    return path


def opset_of(model):
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def probe(path, tensors, name):
    """Runs the file as written, every intermediate tensor an output, and finds those equal to h at each point."""
    model = onnx.load(path)
    asked = [i.name for i in model.graph.input]
    producers = {o: n.op_type for n in model.graph.node for o in n.output if o}
    outputs = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=o) for o in producers if o not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    run = lambda: dict(zip([o.name for o in session.get_outputs()], session.run(None, {n: tensors[n] for n in asked})))
    try:
        values = run()
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
        # At opset 23 the exporter leaves one row of angles for all texts, which ONNX Runtime takes for one text alone.
        tensors = {key: value[:1] for key, value in tensors.items()}
        values = run()
    mask = tensors["attention_mask"].astype(bool)
    points = {}
    for key in [k for k in tensors if k.startswith("zero.h.")]:
        h = tensors[key]
        points[key[len("zero.h."):]] = [
            {"tensor": t, "op": producers[t], "shape": list(v.shape), "dtype": str(v.dtype)}
            for t, v in values.items()
            if t in producers and isinstance(v, numpy.ndarray) and v.size == h.size and v.dtype.kind == "f"
            and v.shape[-1] == h.shape[-1] and numpy.abs(v.reshape(h.shape) - h)[mask].max() < 1e-4
        ]
    out = values[name]
    want = tensors["last_hidden_state"]
    diff = float(numpy.abs(out - want)[mask].max()) if out.shape == want.shape else None
    return {"opset": opset_of(model), "inputs": asked, "max_diff": diff, "points": points, "nodes": len(model.graph.node)}


def make(family, out, kinds, heads):
    """One family's folder; returns lines that say what failed."""
    folder = out / family
    folder.mkdir(parents=True, exist_ok=True)
    model, base = build(family)
    feeds = inputs(family, base.config)
    model.set_attn_implementation("eager")
    head = FAMILIES[family][1] if heads else None
    backbone = reference(family, base, base, feeds, "last_hidden_state", folder / "reference.safetensors")
    jobs = [(base, "last_hidden_state", "", backbone)]
    if head:
        tensors = backbone
        if head == "causal-lm":
            tensors = reference(family, model, base, feeds, "logits", folder / "reference-causal-lm.safetensors")
        jobs.append((model, "logits", f"-{head}", tensors))
    index = folder / "probes.json"
    report, failed = json.loads(index.read_text()) if index.exists() else {}, []
    for module, output, suffix, tensors in jobs:
        for kind in kinds:
            try:
                path = export(module, output, kind, feeds, folder, suffix)
                report[path.name] = probe(path, tensors, output)
                found = {p: [x["tensor"] for x in v] for p, v in report[path.name]["points"].items()}
                print(f"{family}/{path.name}: diff {report[path.name]['max_diff']}, points {found}", flush=True)
            except Exception as error:
                failed.append(f"{family} {kind}{suffix}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
                traceback.print_exc()
            index.write_text(json.dumps(report, indent=1))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--kinds", default=",".join(k for k in KINDS if k != "optimum"))
    parser.add_argument("--no-heads", action="store_true", help="only the graphs that end in last_hidden_state")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    failed = []
    for family in options.families.split(","):
        try:
            failed += make(family, options.out, options.kinds.split(","), not options.no_heads)
        except Exception as error:
            failed.append(f"{family}: {type(error).__name__}: {error}")
            traceback.print_exc()
    print("\n".join(["not exported:", *failed]) if failed else "all exported")


if __name__ == "__main__":
    main()
