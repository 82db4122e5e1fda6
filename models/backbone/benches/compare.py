#!/usr/bin/env python3
"""The same training step here and in torch, one process each, as a table of times, memory and ratios to torch.

    python compare.py MODEL.onnx [MODEL.onnx ...] [--shape minilm|llama] [--threads 1,2] [--engines ort,tract] [--repeats 9]

Every MODEL is a backbone of --shape (torch_step.py --export writes one in float32; an int8 file of the same backbone is
compared with torch's float32 as well). Needs torch and transformers; ONNX Runtime is found as the tools find it. Rounds
alternate between the contestants, and each figure is the median over rounds, so that a busy moment hits all alike.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BENCH = ["cargo", "bench", "-q", "--workspace", "--bench", "step", "--"]


def last_json(command, **variables):
    """The last line of the command's output that is a JSON object."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, env=os.environ | variables)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(lines[-1])


def torch_step(options, threads):
    repeats = ["--repeat", str(options.repeats)]
    found = last_json([sys.executable, HERE / "torch_step.py", "--shape", options.shape, "--threads", str(threads), *repeats])
    return found["step_ms"], found["peak_mib"] * 1024**2 / 1e6


def our_step(options, model, engine, threads):
    flags = ["--engine", engine, "--threads", str(threads), "--repeats", str(options.repeats), "--only", "step", "--json"]
    # As the daemon starts the process that trains.
    found = last_json([*BENCH, model, *flags], MALLOC_ARENA_MAX="1")
    return found["step"]["ms"], found["peak_mb"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--shape", choices=["minilm", "llama"], default="minilm")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--engines", default="ort,tract")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'threads':>7}  {'step':40} {'ms':>8} {'/torch':>7} {'peak MB':>8} {'/torch':>7}")
    for threads in map(int, options.threads.split(",")):
        contestants = {"torch": lambda: torch_step(options, threads)}
        for model in options.models:
            for engine in options.engines.split(","):
                name = f"{engine} {model.name}"
                contestants[name] = lambda m=model, e=engine: our_step(options, m, e, threads)
        found = {name: [] for name in contestants}
        for _ in range(options.rounds):
            for name, measure in contestants.items():
                found[name].append(measure())
        medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in found.items()}
        ms0, mb0 = medians["torch"]
        for name, (ms, mb) in medians.items():
            print(f"{threads:>7}  {name:40} {ms:8.1f} {ms / ms0:7.2f} {mb:8.0f} {mb / mb0:7.2f}", flush=True)


if __name__ == "__main__":
    main()
