#!/usr/bin/env python3
"""Follows README's "A fleet in ten steps" word by word, on one machine.

Every block marked `sh host` is run as on the host's machine, every block marked `sh board` once as on each of three boards:
jetson-1 and jetson-2 are this machine, jetson-3 is an arm64 board under qemu (cross/board.sh). What the words are is the
README's; what differs is beneath them: `broker.site` is this machine, each board has its own /etc/fedtt, /var/lib/fedtt and
/srv in a folder, and commands that would change the machine itself (sudo, apt-get, dpkg, systemctl, scp, cargo and the cross build)
are replaced by ones that do the same to that folder.

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
        with open(self.root / "output", "wb+") as output:
            done = subprocess.run(words, cwd=self.home, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE)
            output.seek(0)
            said = output.read().decode(errors="replace")
        print("".join(f"  {self.name} | {line}\n" for line in said.splitlines()), end="", flush=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: exit code {done.returncode} from\n{text}")
        return said


class Host(Machine):
    def __init__(self, root, options):
        super().__init__("host", root, options)
        (self.bin / "fedtt").symlink_to(options.fedtt.resolve())
        if os.access("/usr/sbin/mosquitto", os.X_OK):
            (self.bin / "mosquitto").symlink_to("/usr/sbin/mosquitto")
        # Built already; what the steps go on with lies where a build would leave it.
        self.shim("cargo", "exit 0")
        packages = self.home / "target/aarch64-unknown-linux-gnu/debian"
        packages.mkdir(parents=True)
        shutil.copy(options.arm64, packages)
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

    def stop(self):
        """Ends what the steps left running: the daemons are children of no shell any more."""
        for pid in processes(str(self.root)):
            os.kill(pid, signal.SIGTERM)


class Board(Machine):
    def __init__(self, name, root, options):
        super().__init__(name, root, options)
        self.emulated = name == EMULATED
        program = f"{root}/usr/bin/fedtt-edge"
        run = f"{REPOSITORY}/cross/board.sh {program}" if self.emulated else program
        self.shim("fedtt-edge", f'exec {run} "$@"')
        package = options.arm64 if self.emulated else options.amd64
        # Unpacked as it stands, with its settings pointed to this folder, and started.
        self.shim("dpkg", f'[ "$1" = -i ]; dpkg-deb -x {package.resolve()} {root}; sed -i -E "s#\\"/(var/lib/fedtt|srv)#\\"{root}/\\1#g" {root}/etc/fedtt/edge.toml; systemctl restart fedtt-edge')
        self.shim("systemctl", f"""
[ "$*" = "restart fedtt-edge" ]
if [ -f {root}/pid ]; then kill "$(cat {root}/pid)"; while kill -0 "$(cat {root}/pid)" 2>/dev/null; do sleep 0.2; done; fi
words=$(sed -n 's#^ExecStart=/usr/bin/##p' {root}/usr/lib/systemd/system/fedtt-edge.service | sed "s#/etc/fedtt#{root}/etc/fedtt#")
nohup $words >>{root}/journal 2>&1 </dev/null &
echo $! >{root}/pid""")

    def stop(self):
        for pid in processes(str(self.root)):
            os.kill(pid, signal.SIGTERM)


def processes(word):
    """Processes that have `word` in their command line; ours alone, as the word is a temporary folder's name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if word in line:
                found.append(int(entry.name))
    return found


def check(host, boards):
    """What the steps have led to."""
    fedtt = lambda *words: json.loads(subprocess.run([host.bin / "fedtt", *words, "--json"], cwd=host.home, env={"HOME": str(host.home), "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, check=True).stdout)["data"]
    runs = fedtt("run", "list")
    print(json.dumps(runs, indent=1)[:2000])
    devices = fedtt("device", "list")
    print(json.dumps(devices, indent=1)[:4000])
    rounds = [json.loads(line) for line in next(host.home.glob("**/rounds.jsonl")).read_text().splitlines()]
    for record in rounds:
        counted = sorted(record["counted"] if isinstance(record.get("counted"), list) else [])
        print("round", record.get("round"), "counted", counted)
        assert counted == BOARDS, f"a round counted {counted}: {record}"
    assert len(rounds) == 2, f"{len(rounds)} rounds"
    assert list(host.home.glob("*.onnx")), "no model was exported"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fedtt", "amd64", "arm64"):
        parser.add_argument(f"--{name}", type=Path, required=True)
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
        check(host, boards)
        failed = False
    finally:
        for machine in [*boards, host]:
            machine.stop()
        time.sleep(1)
        if failed:
            for journal in root.glob("**/journal"):
                print(f"== {journal}\n{journal.read_text(errors='replace')[-4000:]}")
        shutil.rmtree(root, ignore_errors=True)
    print("a fleet in ten steps: done")


if __name__ == "__main__":
    sys.exit(main())
