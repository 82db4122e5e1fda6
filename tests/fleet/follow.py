#!/usr/bin/env python3
"""Follows README's "A fleet in ten steps" word by word, on one machine.

Every block marked `sh host` is run as on the host's machine, every block marked `sh board` once as on each of three boards:
jetson-1 and jetson-2 are this machine, jetson-3 is an arm64 board under qemu (cross/board.sh), or without --arm64 this machine
too. What the words are is the README's; what differs is beneath them: `broker.site` is this machine, each board has its own /etc/fedtt, /var/lib/fedtt and
/srv in a folder, and commands that would change the machine itself (sudo, apt-get, dpkg, systemctl, scp, cargo and the cross build)
are replaced by ones that do the same to that folder (pkill finds this fleet's mosquitto alone).

Needs: mosquitto, and what `cross/check.sh` makes beforehand: both packages, and the host's program.

  tests/fleet/follow.py --fedtt target/debug/fedtt --amd64 fedtt-edge_..._amd64.deb --arm64 fedtt-edge_..._arm64.deb
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SECTION = "## A fleet in ten steps"
BOARDS = ["jetson-1", "jetson-2", "jetson-3"]
EMULATED = "jetson-3"
PATIENCE = 900  # seconds for one block: the emulated board is some hundred times slower than a real one


def blocks():
    """The section's code blocks, as (place, text)."""
    text = (REPOSITORY / "README.md").read_text()
    section = text.split(SECTION, 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^```sh (host|board)\n(.*?)^```$", section, re.M | re.S)
    assert found, f"README has no blocks under {SECTION}"
    steps = len(re.findall(r"^\*\*\d+\. ", section, re.M))
    assert steps == 10, f"README has {steps} steps under {SECTION}, not ten"
    return found


def write(path, text, mode=0o755):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


class Machine:
    """A folder that stands for a machine, and a shell whose commands act on it."""

    def __init__(self, name, root, options):
        self.name, self.root, self.options = name, root, options
        self.home = root / "home"
        self.bin = root / "shims"
        self.home.mkdir(parents=True)
        self.shim("sudo", 'while :; do case "$1" in -u) shift 2 ;; -*) shift ;; *) break ;; esac; done; exec "$@"')
        self.shim("apt-get", "exit 0")
        self.shim("hostname", f"echo {name}")
        # There is no group to give files to.
        self.shim("install", 'words=(); while [ $# -gt 0 ]; do case "$1" in -g|-o) shift 2 ;; *) words+=("$1"); shift ;; esac; done; exec /usr/bin/install "${words[@]}"')

    def shim(self, name, text):
        write(self.bin / name, f"#!/usr/bin/env bash\nset -eu\n{text}\n")

    def here(self, text):
        """The words, with the places a service has to itself moved into this machine's folder."""
        text = text.replace("broker.site", "localhost")
        return re.sub(r"(?<![\w/.])/(etc/fedtt|var/lib/fedtt|srv)\b", lambda m: f"{self.root}/{m[1]}", text)

    def run(self, text):
        path = f"{self.bin}:{os.environ['PATH']}"
        env = {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}
        env |= {k: v for k, v in os.environ.items() if k in ("FEDTT_CROSS", "TMPDIR", "DEBIAN_MIRROR")}
        words = ["bash", "-euo", "pipefail", "-c", self.here(text)]
        # A file, not a pipe: daemons that a step starts hold it open.
        with open(self.root / "output", "wb") as output, open(self.root / "output") as said:
            done = subprocess.Popen(words, cwd=self.home, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            until = time.monotonic() + PATIENCE
            while done.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
                self.echo(said)
            self.echo(said)
            if done.poll() is None:
                done.kill()
                raise SystemExit(f"{self.name}: not done in {PATIENCE} s:\n{text}")
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: exit code {done.returncode} from\n{text}")

    def echo(self, said):
        for line in said:
            print(f"  {self.name} | {line.rstrip()}", flush=True)


class Host(Machine):
    def __init__(self, root, options):
        super().__init__("host", root, options)
        (self.bin / "fedtt").symlink_to(options.fedtt.resolve())
        # Started by root, mosquitto would turn into a user who may not look into this folder.
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        stay = 'grep -q "^user root" "$conf" || echo "user root" >>"$conf"; ' if os.geteuid() == 0 else ""
        self.shim("mosquitto", f'conf=$(realpath "${{@: -1}}"); {stay}exec {program} "${{@:1:$#-1}}" "$conf"')
        # This fleet's broker alone.
        self.shim("pkill", f'for process in /proc/[0-9]*; do if grep -qs mosquitto "$process/comm" && grep -qsF "{root}" "$process/cmdline"; then kill "$1" "${{process#/proc/}}"; fi; done')
        # Built already; what the steps go on with lies where a build would leave it.
        self.shim("cargo", "exit 0")
        packages = self.home / "target/aarch64-unknown-linux-gnu/debian"
        packages.mkdir(parents=True)
        shutil.copy(options.arm64 or options.amd64, packages / "fedtt-edge_0_arm64.deb")
        write(self.home / "cross/build.sh", "#!/bin/sh\nexit 0\n")
        write(self.home / "cross/package.sh", "#!/bin/sh\nexit 0\n")
        boards = f"{root.parent}/boards"
        self.shim("scp", f'last="${{@: -1}}"; home={boards}/${{last%%:*}}/home; for file in "${{@:1:$#-1}}"; do cp "$file" "$home/"; done')
        # Each board's own text.
        reports = (REPOSITORY / "models/zoo/data/field_reports.tsv").read_text().splitlines()
        for place, board in enumerate(BOARDS):
            few = 12 if board == EMULATED else 60
            own = [reports[0], *reports[1 + place :: len(BOARDS)][:few]]
            (self.home / f"{board}.tsv").write_text("\n".join(own) + "\n")

class Board(Machine):
    def __init__(self, name, root, options):
        super().__init__(name, root, options)
        self.emulated = name == EMULATED and options.arm64 is not None
        program = f"{root}/usr/bin/fedtt-edge"
        run = f"{REPOSITORY}/cross/board.sh {program}" if self.emulated else program
        self.shim("fedtt-edge", f'exec {run} "$@"')
        package = options.arm64 if self.emulated else options.amd64
        # Unpacked as it stands, with its settings pointed to this folder, and started.
        self.shim("dpkg", f'[ "$1" = -i ]; dpkg-deb -x {package.resolve()} {root}; install -d -m 0700 {root}/var/lib/fedtt; sed -i -E "s#\\"/(var/lib/fedtt|srv)#\\"{root}/\\1#g" {root}/etc/fedtt/edge.toml; systemctl restart fedtt-edge')
        self.shim("systemctl", f"""
[ "$*" = "restart fedtt-edge" ]
if [ -f {root}/pid ]; then kill "$(cat {root}/pid)"; while kill -0 "$(cat {root}/pid)" 2>/dev/null; do sleep 0.2; done; fi
words=$(sed -n 's#^ExecStart=/usr/bin/##p' {root}/usr/lib/systemd/system/fedtt-edge.service | sed "s#/etc/fedtt#{root}/etc/fedtt#")
nohup $words >>{root}/journal 2>&1 </dev/null &
echo $! >{root}/pid""")


def processes(root):
    """Those that work in the temporary folder `root`, or name it in their command line: what the steps left running."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                named = root in (entry / "cmdline").read_bytes().decode(errors="replace")
                if named or os.readlink(entry / "cwd").startswith(root):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def check(host):
    """What the steps have led to."""
    rounds = [json.loads(line) for line in next(host.home.glob("**/rounds.jsonl")).read_text().splitlines()]
    for record in rounds:
        counted = sorted(record["contributions"])
        assert counted == BOARDS, f"a round counted {counted}: {record}"
        assert not any(record["refused"].values()), f"updates were refused: {record}"
    assert len(rounds) >= 2, f"{len(rounds)} rounds"
    for name in ("report.html", "reports.onnx"):
        assert (host.home / name).stat().st_size > 1000, f"{name} is nearly empty"
    words = [host.bin / "fedtt", "device", "list", "--json"]
    listed = subprocess.run(words, env={"HOME": str(host.home)}, stdout=subprocess.PIPE, check=True).stdout
    revoked = {device["name"]: bool(device["identity"]["revoked"]) for device in json.loads(listed)["data"]["devices"]}
    assert revoked == {name: name == BOARDS[-1] for name in BOARDS}, f"revoked: {revoked}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fedtt", "amd64", "arm64"):
        parser.add_argument(f"--{name}", type=Path, required=name != "arm64")
    options = parser.parse_args()
    if not shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin"):
        raise SystemExit("mosquitto is not installed: these steps need it")
    root = Path(tempfile.mkdtemp(prefix="fedtt-fleet-"))
    host = Host(root / "host", options)
    boards = [Board(name, root / "boards" / name, options) for name in BOARDS]
    failed = True
    try:
        for place, text in blocks():
            for machine in [host] if place == "host" else boards:
                print(f"{machine.name} $ " + text.rstrip().replace("\n", f"\n{machine.name} $ "), flush=True)
                machine.run(text)
        check(host)
        failed = False
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in processes(str(root)):
                os.kill(pid, sign)
            time.sleep(2)
        if failed:
            for journal in [*root.glob("**/journal"), *root.glob("**/host.log")]:
                print(f"== {journal}\n{journal.read_text(errors='replace')[-3000:]}")
        shutil.rmtree(root, ignore_errors=True)
    print("a fleet in ten steps: done")


if __name__ == "__main__":
    sys.exit(main())
