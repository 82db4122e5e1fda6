#!/usr/bin/env bash
# Refuses a program that needs a newer glibc: cross/floor.sh PROGRAM VERSION
set -euo pipefail
[ $# = 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
symbols=$(readelf --wide --dyn-syms "$1" | grep -oE '[^ ]+@GLIBC_[0-9.]+' | sort -u)
newest=$(sed 's/.*@GLIBC_//' <<<"$symbols" | sort -V | tail -1)
if [ "$(printf '%s\n' "$newest" "$2" | sort -V | tail -1)" != "$2" ]; then
  echo "$1 needs glibc $newest, boards may have $2:" >&2
  grep -F "@GLIBC_$newest" <<<"$symbols" >&2
  exit 1
fi
echo "$1: $(stat -c %s "$1") bytes, glibc $newest or newer (floor $2)"
