#!/usr/bin/env bash
# Runs a command as on an arm64 board with glibc 2.31: cross/board.sh PROGRAM [ARGUMENT]...
#
# qemu-user over a sysroot of Debian bullseye's C library, both fetched into target/cross at first use. With
# FEDTT_BOARD_ORT=1 ONNX Runtime for arm64 is fetched as well and found by the program (ORT_DYLIB_PATH).
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/cross/tools.sh"
cross=${FEDTT_CROSS:-$here/target/cross}
sysroot=$cross/sysroot

if [ ! -e "$cross/sysroot.ready" ]; then
  echo "cross: fetching an arm64 C library of glibc 2.31" >&2
  apt_begin "$cross/sysroot-lists" arm64 bullseye >&2
  apt_unpack "$cross/sysroot-lists" "$sysroot" libc6 libgcc-s1 libstdc++6 ca-certificates >&2
  # ONNX Runtime reads this to know the cores; under qemu it would see those of the machine beneath.
  mkdir -p "$sysroot/proc"
  for core in 0 1; do
    printf 'processor\t: %d\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n' "$core"
  done >"$sysroot/proc/cpuinfo"
  touch "$cross/sysroot.ready"
fi

qemu=$(command -v qemu-aarch64-static || true)
if [ -z "$qemu" ]; then
  qemu=$cross/qemu/usr/bin/qemu-aarch64-static
  if [ ! -x "$qemu" ]; then
    echo "cross: fetching qemu-user" >&2
    apt_begin "$cross/qemu-lists" "$(dpkg --print-architecture)" bookworm >&2
    apt_unpack "$cross/qemu-lists" "$cross/qemu" qemu-user-static >&2
  fi
fi

if [ -n "${FEDTT_BOARD_ORT:-}" ]; then
  library=$("$here/cross/onnxruntime.sh" aarch64)
  export ORT_DYLIB_PATH=$library
fi
# What the program starts of itself is emulated as well.
export FEDTT_LAUNCHER=$here/cross/board.sh
exec "$qemu" -L "$sysroot" "$@"
