#!/usr/bin/env bash
# Makes an overlay of a board's root file system: cross/overlay.sh PACKAGE.deb SEED.toml FOLDER [EDGE.toml]
#
# Copied over the root file system of an image before it is flashed (on Jetson Linux: Linux_for_Tegra/rootfs), it has every
# board install the package at its first boot and enrol itself with the seed of `fedtt device enroll --batch`.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
package=$1 seed=$2 root=$3 settings=${4:-}
for file in "$package" "$seed" ${settings:+"$settings"}; do
  [ -f "$file" ] || { echo "cross/overlay.sh: there is no file $file" >&2; exit 1; }
done
dpkg-deb --field "$package" Package | grep -qx fedtt-edge || { echo "cross/overlay.sh: $package is no package of fedtt-edge" >&2; exit 1; }

# The image's own folders get the modes of these.
umask 022
install -d -m 0755 "$root" "$root/var/cache/fedtt" "$root/etc/systemd/system/multi-user.target.wants"
install -m 0644 "$package" "$root/var/cache/fedtt/fedtt-edge.deb"
install -d -m 0700 "$root/var/lib/fedtt"
install -m 0600 "$seed" "$root/var/lib/fedtt/enroll.toml"
if [ -n "$settings" ]; then
  install -d -m 0755 "$root/etc/fedtt"
  install -m 0644 "$settings" "$root/etc/fedtt/edge.toml"
fi
cat >"$root/etc/systemd/system/fedtt-first-boot.service" <<'UNIT'
[Unit]
Description=Installs FedTT at a board's first boot
ConditionPathExists=/var/cache/fedtt/fedtt-edge.deb
# A board that is not set up yet has no users to add to; what the system installs by itself at its first boot goes first.
After=nv-oem-config.service apt-daily.service apt-daily-upgrade.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
# Another may be installing, or the power have gone while this did.
Restart=on-failure
RestartSec=30
ExecStartPre=-/usr/bin/dpkg --configure -a
ExecStart=/usr/bin/dpkg --force-confold --install /var/cache/fedtt/fedtt-edge.deb
ExecStartPost=/bin/rm -f /var/cache/fedtt/fedtt-edge.deb
ExecStartPost=/bin/systemctl disable fedtt-first-boot.service

[Install]
WantedBy=multi-user.target
UNIT
ln -sf ../fedtt-first-boot.service "$root/etc/systemd/system/multi-user.target.wants/fedtt-first-boot.service"
echo "$root: copy it over the root file system of the image, owned by root: sudo rsync -a --chown=root:root $root/ ROOTFS/"
