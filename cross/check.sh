#!/usr/bin/env bash
# What must hold of boards: cross/check.sh. Builds for arm64 and runs it there, emulated; packages, installs, removes.
#
# Needs the tests built before (target/debug/fedtt, fedtt-edge), python3, dpkg; mosquitto for the last part.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '\n== %s\n' "$*"; }
at_most() { # WHAT BYTES LIMIT
  echo "$1: $2 bytes (at most $3)"
  [ "$2" -le "$3" ] || { echo "cross/check.sh: $1 is too large" >&2; exit 1; }
}

say "build for boards"
cross/build.sh arm64
at_most "fedtt-edge for arm64" "$(stat -c %s target/$target/board/fedtt-edge)" 17000000

say "packages"
cross/package.sh arm64
arm64=$(ls -t target/$target/debian/fedtt-edge_*_arm64.deb | head -1)
at_most "the package for arm64" "$(stat -c %s "$arm64")" 8000000
# Of what the tests have built: the same sources, not the same optimisation.
PACKAGE_PROGRAM=target/debug/fedtt-edge cross/package.sh amd64 fedtt-edge
amd64=$(ls -t target/x86_64-unknown-linux-gnu/debian/fedtt-edge_*_amd64.deb | head -1)
cross/check-package.sh "$amd64"
PACKAGE_PROGRAM=target/debug/fedtt cross/package.sh amd64 fedtt
cross/check-package.sh "$(ls -t target/x86_64-unknown-linux-gnu/debian/fedtt_*_amd64.deb | head -1)"

say "an overlay of a board's image"
echo 'a seed' >"$work/seed.toml"
cross/overlay.sh "$arm64" "$work/seed.toml" "$work/overlay"
cmp "$arm64" "$work/overlay/var/cache/fedtt/fedtt-edge.deb"
modes=$(cd "$work/overlay" && stat -c '%a %n' . etc var var/lib/fedtt var/lib/fedtt/enroll.toml)
[ "$modes" = "$(printf '755 .\n755 etc\n755 var\n700 var/lib/fedtt\n600 var/lib/fedtt/enroll.toml')" ] || {
  echo "cross/check.sh: an overlay has other modes: $modes" >&2
  exit 1
}
unit=$work/overlay/etc/systemd/system/fedtt-first-boot.service
if command -v systemd-analyze >/dev/null; then systemd-analyze verify "$unit"; fi

say "the arm64 package, unpacked and run on an emulated board"
dpkg-deb -x "$arm64" "$work/board"
on_board() { cross/board.sh "$work/board/usr/bin/fedtt-edge" "$@"; }
on_board --version
# No broker is there to be reached; all else must be well.
on_board doctor --json --set "state=$work/state" --set engine.engine=tract >"$work/doctor.json" || true
python3 - "$work/doctor.json" <<'PY'
import json, sys
checks = json.load(open(sys.argv[1]))["data"]["checks"]
for check in checks:
    print(check["level"], check["name"], check["finding"])
failed = [check["name"] for check in checks if check["level"] == "fail"]
assert failed == ["broker"], f"{failed} failed"
PY
head -7 models/zoo/data/field_reports.tsv >"$work/few.tsv"
train=(train --data "$work/few.tsv" --label label --epochs 1 --batch 3 --max-length 16 --threads 1)
on_board "${train[@]}" --engine tract -o "$work/tract.safetensors"
FEDTT_BOARD_ORT=1 on_board "${train[@]}" --engine ort -o "$work/ort.safetensors"

say "gradients on arm64 against x86-64"
target/debug/fedtt-edge verify --engine tract --write-reference "$work/x86.safetensors"
on_board verify --engine tract --threads 1 --reference "$work/x86.safetensors"
FEDTT_BOARD_ORT=1 on_board verify --engine ort --threads 1 --reference "$work/x86.safetensors"

say "a fleet in ten steps"
if command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; then
  python3 tests/fleet/follow.py --fedtt target/debug/fedtt --amd64 "$amd64" --arm64 "$arm64"
else
  echo "NOT RUN: mosquitto is not installed"
fi
