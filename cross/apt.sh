# Sourced. Packages of Debian's, of any suite and architecture, unpacked into a folder: nothing is installed, and the
# system's own package lists are left alone.

# The address of `debian` or `debian-security`: below $DEBIAN_MIRROR, or as this machine's own package sources have it.
debian_source() { # debian|debian-security
  if [ -n "${DEBIAN_MIRROR:-}" ]; then
    echo "${DEBIAN_MIRROR%/}/$1"
    return
  fi
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } | sed "s/#.*//" |
    grep -oE 'https?://[^] ]+' | sed 's:/*$::' | grep -E "/$1\$" | head -1
}

# Begins a private set of package lists.
apt_begin() { # FOLDER ARCHITECTURE SUITE...   (a suite: bookworm, or bookworm-security)
  local folder=$1 architecture=$2 suite kind source
  shift 2
  mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial" "$folder/debs"
  : >"$folder/sources.list"
  for suite in "$@"; do
    kind=debian
    [[ $suite == *-security ]] && kind=debian-security
    source=$(debian_source "$kind") || true
    [ -n "$source" ] || { echo "cross: no Debian mirror known: set DEBIAN_MIRROR to one's address" >&2; return 1; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $source $suite main" >>"$folder/sources.list"
  done
  cat >"$folder/apt.conf" <<CONF
Dir::State "$folder/state";
Dir::State::status "/dev/null";
Dir::Cache "$folder/cache";
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "$architecture";
APT::Architectures {"amd64";"arm64";};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
  APT_CONFIG="$folder/apt.conf" apt-get update -qq
}

# Downloads packages with the lists begun in FOLDER and unpacks them into ROOT.
apt_unpack() { # FOLDER ROOT PACKAGE[:ARCHITECTURE]...
  local folder=$1 root=$2 deb
  shift 2
  mkdir -p "$root"
  rm -f "$folder"/debs/*.deb
  (cd "$folder/debs" && APT_CONFIG="$folder/apt.conf" apt-get download -qq "$@")
  for deb in "$folder"/debs/*.deb; do
    dpkg -x "$deb" "$root"
  done
  rm -f "$folder"/debs/*.deb
}
