#!/usr/bin/env bash
# Installs, upgrades, removes and purges a package for real, where this user may: cross/check-package.sh PACKAGE.deb
set -euo pipefail
package=$(realpath "$1")
name=$(dpkg-deb --field "$package" Package)
case $name in
  fedtt-edge) user=fedtt mode=700 settings=edge.toml kept='labels = ["kept"]' units=(fedtt-edge fedtt-serve) ;;
  fedtt) user=fedtt-host mode=750 settings=host.toml kept='# kept' units=(fedtt fedtt-broker) ;;
  *) echo "cross/check-package.sh: $package is no package of fedtt's" >&2; exit 1 ;;
esac
state=/var/lib/$user
root=()
[ "$(id -u)" = 0 ] || root=(sudo -n)
if ! "${root[@]}" true 2>/dev/null; then
  echo "NOT RUN: installing $package needs root"
  exit
fi
if dpkg -s "$name" >/dev/null 2>&1 || [ -e "$state" ]; then
  echo "NOT RUN: $name is installed here already, or was"
  exit
fi
fail() {
  echo "cross/check-package.sh: $*" >&2
  exit 1
}
serving=
end() {
  [ -z "$serving" ] || "${root[@]}" pkill -u "$user" -x "$name" || true
  "${root[@]}" dpkg --purge "$name" >/dev/null 2>&1 || true
}
trap end EXIT
if ! command -v adduser >/dev/null || ! command -v pkill >/dev/null || [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
  "${root[@]}" apt-get install -qq -y --no-install-recommends adduser ca-certificates procps >/dev/null
fi

"${root[@]}" dpkg --install "$package"
"$name" --version
[ "$(stat -c '%U %a' "$state")" = "$user $mode" ] || fail "$state is not the service's alone"
for unit in "${units[@]}"; do
  [ -f "/usr/lib/systemd/system/$unit.service" ] || fail "there is no unit $unit"
  # A program of a package that need not be there is no fault of the unit's.
  if command -v systemd-analyze >/dev/null && { [ "$unit" != fedtt-broker ] || [ -x /usr/sbin/mosquitto ]; }; then
    systemd-analyze verify "/usr/lib/systemd/system/$unit.service"
  fi
done

# The host, with its settings and as its user, without the service manager: it serves, and sets a broker up.
if [ "$name" = fedtt ]; then
  as_host() { "${root[@]}" runuser -u fedtt-host -- "$@"; }
  folder=$state/state
  as_host /usr/bin/fedtt serve --config /etc/fedtt/host.toml --bind 127.0.0.1:0 --no-web >/dev/null 2>&1 &
  serving=$!
  for _ in $(seq 100); do
    as_host /usr/bin/fedtt device list --state "$folder" >/dev/null 2>&1 && break
    sleep 0.2
  done
  as_host /usr/bin/fedtt broker config mosquitto --hostname localhost --state "$folder" -o "$state/broker" >/dev/null
  as_host test -r "$state/broker/broker.key" || fail "the host cannot read the broker's key"
  "${root[@]}" grep -q "^# key = \"$state/broker/host.key\"" /etc/fedtt/host.toml || fail "the settings name no key"
  "${root[@]}" pkill -u "$user" -x "$name"
  wait "$serving" || true
  serving=
fi

echo "$kept" | "${root[@]}" tee -a "/etc/fedtt/$settings" >/dev/null
"${root[@]}" install -o "$user" -g "$user" -m 0600 /dev/null "$state/kept"
"${root[@]}" dpkg --force-confold --install "$package"
tail -1 "/etc/fedtt/$settings" | grep -q kept || fail "an upgrade lost the settings"
"${root[@]}" test -f "$state/kept" || fail "an upgrade lost the state"

"${root[@]}" dpkg --remove "$name"
[ ! -e "/usr/bin/$name" ] || fail "removing left the program"
"${root[@]}" test -f "$state/kept" && [ -f "/etc/fedtt/$settings" ] || fail "removing took state or settings"

"${root[@]}" dpkg --purge "$name"
[ ! -e "$state" ] && [ ! -e /etc/fedtt ] || fail "purging left state or settings"
if getent passwd "$user" >/dev/null; then fail "purging left the user"; fi
trap - EXIT
echo "$(basename "$package"): installed, upgraded, removed, purged"
