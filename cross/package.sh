#!/usr/bin/env bash
# Makes a package of what cross/build.sh built: cross/package.sh [arm64|amd64] [fedtt-edge|fedtt]
#
# arm64 and fedtt-edge unless told otherwise. It comes to target/<target>/debian/. PACKAGE_PROGRAM=FILE packages that program
# in place of the one built for boards, quickly: to check packages with a program that is built already, not to hand them out.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/tools.sh
architecture=${1:-arm64} name=${2:-fedtt-edge}
target=$(cross_target "$architecture")
case $name in fedtt | fedtt-edge) ;; *) target= ;; esac
[ -n "$target" ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cross_tools
mkdir -p target/cross
# One page of settings for all; a service keeps its state where systemd lets it write, and finds its secrets there.
case $name in
  fedtt-edge)
    sed -e 's|^state = .*|state = "/var/lib/fedtt"            # what must outlive the process|' \
      -e 's|^#* *enroll = .*|enroll = "/var/lib/fedtt/enroll.toml"  # the seed of `fedtt device enroll`; not there once used|' \
      edge-client/edge.example.toml >target/cross/edge.toml
    ;;
  fedtt)
    sed -e 's|^# state = .*|state = "/var/lib/fedtt-host/state" # what must outlive the process|' \
      -e 's|^runs = "runs" *|runs = "/var/lib/fedtt-host/runs"   |' \
      -e 's#"\([a-z]*\.\(pem\|key\)\)"#"/var/lib/fedtt-host/broker/\1"#' \
      host/host.example.toml >target/cross/host.toml
    ;;
esac
how=(--profile board --fast) # it is compressed anew below
if [ -n "${PACKAGE_PROGRAM:-}" ]; then
  mkdir -p "target/$target/given"
  install -s "$PACKAGE_PROGRAM" "target/$target/given/$name"
  how=(--profile given --fast)
fi
cargo-deb --package "$name" --target "$target" "${how[@]}" --no-build --no-strip
[ -z "${PACKAGE_PROGRAM:-}" ] || exit 0
# Compressed anew for code of four-byte instructions (lp, lc) or with x86's jumps made absolute: what xz 5.2 unpacks, in 9 MiB.
case $architecture in
  arm64) filters=(--lzma2=preset=9e,dict=8MiB,lc=1,lp=2) ;;
  amd64) filters=(--x86 --lzma2=preset=9e,dict=8MiB) ;;
esac
deb=$(realpath "$(ls -t "target/$target/debian/${name}"_*.deb | head -1)")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ar p "$deb" data.tar.xz | xz -dc | xz -c "${filters[@]}" >"$work/data.tar.xz"
(cd "$work" && ar rDS "$deb" data.tar.xz)
echo "$deb: $(stat -c %s "$deb") bytes"
