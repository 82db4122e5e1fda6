#!/usr/bin/env bash
# Fetches ONNX Runtime's CPU library out of its Python wheel and prints where it lies: cross/onnxruntime.sh [x86_64|aarch64]
set -euo pipefail
cd "$(dirname "$0")/.."
machine=${1:-$(uname -m)}
VERSION=1.31.1
folder=$PWD/target/onnxruntime-$VERSION-$machine
if [ ! -e "$folder/libonnxruntime.so" ]; then
  mkdir -p "$folder"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 311 --platform "manylinux_2_28_$machine" -d "$folder" "onnxruntime==$VERSION" >&2
  python3 - "$folder" <<'PY'
import glob, os, shutil, sys, zipfile
folder = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(f"{folder}/*.whl")[0])
name = next(n for n in wheel.namelist() if "/libonnxruntime.so." in n)
with wheel.open(name) as source, open(f"{folder}/partial", "wb") as target:
    shutil.copyfileobj(source, target)
os.rename(f"{folder}/partial", f"{folder}/libonnxruntime.so")
PY
fi
echo "$folder/libonnxruntime.so"
