#!/usr/bin/env bash
# Makes a board's package of what cross/build.sh built: cross/package.sh [arm64|amd64] [PROFILE]
#
# It comes to target/<target>/debian/. PROFILE is `board` unless told otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/tools.sh
architecture=${1:-arm64}
target=$(cross_target "$architecture")
[ -n "$target" ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cross_tools
mkdir -p target/cross
# One page of settings for all; a service keeps its state where systemd lets it write, and finds its seed there.
sed -e 's|^state = .*|state = "/var/lib/fedtt"            # what must outlive the process|' \
  -e 's|^#* *enroll = .*|enroll = "/var/lib/fedtt/enroll.toml"  # the seed of `fedtt device enroll`; not there once used|' \
  edge-client/edge.example.toml >target/cross/edge.toml
cargo-deb --package fedtt-edge --target "$target" --profile "${2:-board}" --no-build --no-strip
