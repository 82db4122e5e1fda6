#!/usr/bin/env python3
"""The training step that the `step` bench times, in torch: the yardstick of its bars.

    python torch_step.py --shape minilm --threads 1          # forward + backward, median; one JSON object
    python torch_step.py --shape llama --export llama.onnx   # the same backbone as ONNX, for the bench to measure on

A frozen backbone with scaled-dot-product attention, FedTT bottleneck adapters at every attention-output and second MLP
projection before the residual add, mean pooling, a dense head of 6 classes, cross-entropy. TT cores (rank 5, bottleneck 64)
are contracted to their halves L and R inside the step. Weights are random unless --weights names a folder that
transformers can load. Peak memory is over the process with its imports done.
"""

import argparse
import json
import math
import pathlib
import statistics
import time

import torch
import transformers

CLASSES = 6
SHAPES = {
    "minilm": dict(
        config=dict(
            model_type="bert", num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536,
            vocab_size=30522,
        ),
        modes=([8, 6, 8], [8, 8]),
        sites=(".attention.output.dense", ".output.dense"),
    ),
    "llama": dict(
        config=dict(
            model_type="llama", num_hidden_layers=4, hidden_size=1024, num_attention_heads=16, num_key_value_heads=4,
            intermediate_size=2816, vocab_size=8192, max_position_embeddings=2048,
        ),
        modes=([8, 16, 8], [8, 8]),
        sites=(".self_attn.o_proj", ".mlp.down_proj"),
    ),
}


class TtLinear(torch.nn.Module):
    """y = x L R + b, with L [in, r] and R [r, out] the contractions of the tensor-train cores left and right of in|out."""

    def __init__(self, inputs, outputs, rank):
        super().__init__()
        modes = inputs + outputs
        ranks = [1] + [rank] * (len(modes) - 1) + [1]
        spread = math.sqrt(1 / (math.prod(inputs) + math.prod(outputs))) ** (1 / len(modes))
        self.cut = len(inputs)
        self.cores = torch.nn.ParameterList(
            torch.randn(ranks[i], k, ranks[i + 1]) / math.sqrt(ranks[i + 1]) * spread for i, k in enumerate(modes)
        )
        self.bias = torch.nn.Parameter(torch.zeros(math.prod(outputs)))

    def forward(self, x):
        left, right = self.contract(self.cores[: self.cut]), self.contract(self.cores[self.cut :])
        return (x @ left.reshape(-1, left.shape[-1])) @ right.reshape(right.shape[0], -1) + self.bias

    @staticmethod
    def contract(cores):
        total = cores[0]
        for core in list(cores)[1:]:
            total = torch.tensordot(total, core, dims=1)
        return total


class Adapter(torch.nn.Module):
    """h + up(relu(down(h)))"""

    def __init__(self, hidden, bottleneck, rank):
        super().__init__()
        self.down, self.up = TtLinear(hidden, bottleneck, rank), TtLinear(bottleneck, hidden, rank)

    def forward(self, h):
        return h + self.up(torch.relu(self.down(h)))


class Classifier(torch.nn.Module):
    def __init__(self, backbone, shape, rank):
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.adapters = torch.nn.ModuleList()
        for name, module in backbone.named_modules():
            if name.endswith(shape["sites"]):
                adapter = Adapter(*shape["modes"], rank)
                self.adapters.append(adapter)
                module.register_forward_hook(lambda _module, _args, h, adapter=adapter: adapter(h))
        self.head = torch.nn.Linear(backbone.config.hidden_size, CLASSES)

    def forward(self, input_ids, attention_mask, labels):
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.cross_entropy(self.head(pooled), labels)


class LastHiddenState(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids, attention_mask):
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def backbone(shape, weights):
    if weights:
        model = transformers.AutoModel.from_pretrained(weights, attn_implementation="sdpa")
    else:
        settings = dict(shape["config"])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = transformers.AutoModel.from_config(config, attn_implementation="sdpa")
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model.float().eval()


def export(model, path):
    ids = torch.randint(1, model.config.vocab_size, (2, 8))
    names = ["input_ids", "attention_mask"]
    axes = {n: {0: "batch", 1: "sequence"} for n in [*names, "last_hidden_state"]}
    with torch.no_grad():
        torch.onnx.export(
            LastHiddenState(model), (ids, torch.ones_like(ids)), path, dynamo=False, opset_version=17,
            input_names=names, output_names=["last_hidden_state"], dynamic_axes=axes,
        )


def memory(field):
    """VmRSS or VmHWM in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) / 1024


def median_ms(run, repeat):
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of a pretrained backbone of that shape")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rank", type=int, default=5)
    parser.add_argument("--export", type=pathlib.Path, help="write the backbone as ONNX (TorchScript, opset 17), time nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    shape = SHAPES[options.shape]

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    start = memory("VmRSS")
    model = backbone(shape, options.weights)
    if options.export:
        return export(model, options.export)
    model = Classifier(model, shape, options.rank)
    ids = torch.randint(1, shape["config"]["vocab_size"], (options.batch, options.length))
    feeds = (ids, torch.ones_like(ids), torch.randint(0, CLASSES, (options.batch,)))

    def step():
        model.zero_grad(set_to_none=True)
        model(*feeds).backward()

    step_ms = median_ms(step, options.repeat)
    peak = memory("VmHWM") - start
    with torch.no_grad():
        forward_ms = median_ms(lambda: model(*feeds), options.repeat)
    result = dict(
        torch=torch.__version__, shape=options.shape, threads=options.threads, batch=options.batch, length=options.length,
        sites=len(model.adapters), trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        step_ms=round(step_ms, 1), forward_ms=round(forward_ms, 1), ratio=round(step_ms / forward_ms, 2),
        peak_mib=round(peak, 1),
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
