# Sourced. What a cross build needs, in target/cross: zig as C compiler and linker, cargo-zigbuild, cargo-deb, and Rust's
# standard library for the target. Sets `cross`, PATH, and RUSTC where the standard library comes with a compiler of its own.
# shellcheck source=cross/apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

cross=${FEDTT_CROSS:-$PWD/target/cross}
GLIBC_FLOOR=2.31 # JetPack 5; JetPack 6 has 2.35

cross_target() { # arm64|amd64
  case $1 in
    arm64) echo aarch64-unknown-linux-gnu ;;
    amd64) echo x86_64-unknown-linux-gnu ;;
  esac
}

# Versions are pinned. zig and cargo-zigbuild come built already, from the Python package index.
cross_tools() {
  if [ ! -e "$cross/tools/ready" ]; then
    echo "cross: fetching zig, cargo-zigbuild and cargo-deb"
    python3 -m venv "$cross/tools"
    "$cross/tools/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.0
    cargo install --quiet --locked --debug --no-default-features --features lzma --root "$cross/tools" cargo-deb@3.8.0
    touch "$cross/tools/ready"
  fi
  PATH="$cross/tools/bin:$PATH"
}

# Rust's standard library for TARGET: rustup's, or, where it cannot download, Debian's with Debian's compiler, unpacked.
cross_std() { # TARGET
  local target=$1 root=$cross/rust version llvm
  if rustc --print target-libdir --target "$target" 2>/dev/null | xargs -I{} test -d {}; then
    return
  fi
  if command -v rustup >/dev/null && timeout 300 rustup --quiet target add "$target" 2>/dev/null; then
    return
  fi
  if [ ! -x "$root/rustc" ]; then
    echo "cross: rustup cannot download the standard library for $target: taking Debian's"
    apt_begin "$cross/rust-lists" amd64 bookworm bookworm-security
    version=$(APT_CONFIG="$cross/rust-lists/apt.conf" apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: *\(libstd-rust-web-[0-9.]*\).*/\1/p' | head -1)
    llvm=$(APT_CONFIG="$cross/rust-lists/apt.conf" apt-cache depends "$version" | sed -n 's/.*Depends: *\(libllvm[0-9]*\).*/\1/p' | head -1)
    apt_unpack "$cross/rust-lists" "$root" rustc-web libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64 "$version" "$llvm"
    cat >"$root/rustc" <<RUSTC
#!/bin/sh
LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$root/usr/bin/rustc" "\$@"
RUSTC
    chmod +x "$root/rustc"
  fi
  export RUSTC="$root/rustc"
}
