#!/usr/bin/env bash
# Builds for boards: cross/build.sh [arm64|amd64] [fedtt-edge|fedtt]...
#
# Binaries that run on JetPack 5 and 6 alike (glibc 2.31 and newer), with both engines in them. arm64 and fedtt-edge unless
# told otherwise. They come to target/<target>/board/; a symbol newer than the floor fails the build.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/tools.sh

architecture=arm64
case ${1:-} in
  arm64 | amd64) architecture=$1; shift ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit ;;
esac
[ $# -gt 0 ] || set -- fedtt-edge
for name in "$@"; do
  case $name in
    fedtt | fedtt-edge) ;;
    *) echo "cross/build.sh: no program \`$name\`: arm64 or amd64 first, then fedtt-edge, fedtt or both" >&2; exit 2 ;;
  esac
done

target=$(cross_target "$architecture")
cross_tools
cross_std "$target"
for name in "$@"; do
  (
    # LLVM makes functions of what code has in common, where that saves a byte; the 28 bytes each takes in the tables for
    # unwinding it does not count.
    options=(-C llvm-args=-outliner-benefit-threshold=28)
    if [ "$name" = fedtt-edge ]; then
      # A device's engine has a process of its own, so that a panic may end it: without unwinding the program is a quarter
      # smaller.
      export CARGO_PROFILE_BOARD_PANIC=abort
      export "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_RUSTFLAGS=-C force-unwind-tables=no"
      export "CFLAGS_${target//-/_}=-fno-asynchronous-unwind-tables -fno-unwind-tables"
      options=(-C "link-arg=-Wl,-T,$PWD/cross/tables.ld")
    fi
    cargo-zigbuild rustc --profile board --target "$target.$GLIBC_FLOOR" --package "$name" --bin "$name" -- "${options[@]}"
  )
  cross/floor.sh "target/$target/board/$name" "$GLIBC_FLOOR"
done
