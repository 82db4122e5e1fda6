"""The unlabelled text the encoder is distilled on. Every label column is dropped here, and no dev or test split is read."""

import csv
import json
import os
import random
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("FEDTT_SHARED", HERE.parents[3] / "shared"))
REPORTS = HERE.parent / "data" / "field_reports.tsv"


def clean(text):
    return re.sub(r"\s+", " ", text).strip()


def sentences(text):
    return [s for s in re.split(r"(?<=[.!?;:])\s+", clean(text)) if 3 <= len(s.split()) <= 60]


def sst2(split="train"):
    """(text, label) of SST-2; the label is for `evaluate.py` alone."""
    with open(SHARED / "data/sst2" / f"{split}.tsv", encoding="utf-8") as f:
        return [(clean(r["sentence"]), int(r["label"])) for r in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)]


def trec(split="train"):
    with open(SHARED / "data/trec" / f"TREC.{split}.all", encoding="latin-1") as f:
        return [(clean(text), label) for label, text in (line.split(" ", 1) for line in f if " " in line)]


def reports(split="train"):
    with open(REPORTS, encoding="utf-8") as f:
        rows = csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(r["text"], r["label"]) for r in rows if r["split"] == split]


def cola():
    with open(SHARED / "data/cola/in_domain_train.tsv", encoding="utf-8") as f:
        return [clean(line.split("\t")[3]) for line in f]


def shakespeare(limit, rng):
    with open(SHARED / "data/tinyshakespeare/by_speaker.jsonl", encoding="utf-8") as f:
        found = [s for line in f for speech in json.loads(line)["speeches"] for s in sentences(speech)]
    return rng.sample(found, min(limit, len(found)))


def spliced(texts, copies, rng):
    """Spans of the given texts, half of them joined to a span of another: more text of a small domain."""

    def span(text):
        words = text.split()
        length = rng.randint(min(3, len(words)), min(24, len(words)))
        start = rng.randint(0, len(words) - length)
        return " ".join(words[start : start + length])

    return [
        span(text) if rng.random() < 0.5 else f"{span(text)} {span(rng.choice(texts))}"
        for text in texts
        for _ in range(copies)
    ]


def sources(seed=7):
    """Source name -> distinct texts, in a fixed order."""
    rng = random.Random(seed)
    stories = (SHARED / "data/tinystories_sample.txt").read_text(encoding="utf-8")
    found = {
        "sst2": [text for text, _ in sst2()],
        "trec": [text for text, _ in trec()],
        "cola": cola(),
        "shakespeare": shakespeare(8000, rng),
        "tinystories": sentences(stories),
    }
    if REPORTS.exists():
        texts = [text for text, _ in reports()]
        found["reports"] = texts
        found["spliced"] = spliced(texts, 12, rng)
    return {name: [t for t in dict.fromkeys(texts) if t] for name, texts in found.items()}
