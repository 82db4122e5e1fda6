#!/usr/bin/env bash
# Installs, upgrades, removes and purges a package for real, where this user may: cross/check-package.sh PACKAGE.deb
set -euo pipefail
package=$(realpath "$1")
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
if ! "${root[@]}" true 2>/dev/null; then
  echo "NOT RUN: installing $package needs root"
  exit
fi
if dpkg -s fedtt-edge >/dev/null 2>&1 || [ -e /var/lib/fedtt ]; then
  echo "NOT RUN: fedtt-edge is installed here already, or was"
  exit
fi
fail() {
  echo "cross/check-package.sh: $*" >&2
  exit 1
}
end() { "${root[@]}" dpkg --purge fedtt-edge >/dev/null 2>&1 || true; }
trap end EXIT
if ! command -v adduser >/dev/null || [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
  "${root[@]}" apt-get install -qq -y --no-install-recommends adduser ca-certificates >/dev/null
fi

"${root[@]}" dpkg --install "$package"
fedtt-edge --version
[ "$(stat -c '%U %a' /var/lib/fedtt)" = "fedtt 700" ] || fail "/var/lib/fedtt is not the service's alone"
[ -f /usr/lib/systemd/system/fedtt-edge.service ] || fail "there is no unit"
if command -v systemd-analyze >/dev/null; then
  systemd-analyze verify /usr/lib/systemd/system/fedtt-edge.service
fi

echo 'labels = ["kept"]' | "${root[@]}" tee -a /etc/fedtt/edge.toml >/dev/null
"${root[@]}" install -o fedtt -g fedtt -m 0600 /dev/null /var/lib/fedtt/kept
"${root[@]}" dpkg --force-confold --install "$package"
tail -1 /etc/fedtt/edge.toml | grep -q kept || fail "an upgrade lost the settings"
[ -f /var/lib/fedtt/kept ] || fail "an upgrade lost the state"

"${root[@]}" dpkg --remove fedtt-edge
[ ! -e /usr/bin/fedtt-edge ] || fail "removing left the program"
[ -f /var/lib/fedtt/kept ] && [ -f /etc/fedtt/edge.toml ] || fail "removing took state or settings"

"${root[@]}" dpkg --purge fedtt-edge
[ ! -e /var/lib/fedtt ] && [ ! -e /etc/fedtt ] || fail "purging left state or settings"
if getent passwd fedtt >/dev/null; then fail "purging left the user"; fi
trap - EXIT
echo "$(basename "$package"): installed, upgraded, removed, purged"
