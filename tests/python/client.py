#!/usr/bin/env python3
"""A device written from models/wire/SPEC.md alone: takes part in every round it is asked for.

    python client.py --broker HOST:PORT --fleet FLEET --name NAME --bundle HASH [--step 0.001]

It does not train: it moves every value it may train by --step, which is enough to show that both ends understand each
other. It makes itself a key and listens to the first host it hears. Ends when the run does. Needs cbor2, zstandard,
paho-mqtt and cryptography.
"""

import argparse
import hashlib
import struct
import sys
import time
import zlib

import cbor2
import paho.mqtt.client as mqtt
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_BODY = 64 << 20
PRESENCE, PLAN, MANIFEST, CHUNK, UPDATE, TENSORS, VERDICT, PROGRESS, REFUSAL, NEED = range(1, 11)
HELLO, GREETING, HOST, END = range(11, 15)
LAST_BEAT = (1 << 64) - 1


def encode(kind, body):
    data = cbor2.dumps(body)
    small = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(data)
    if len(small) < len(data):
        kind, data = kind | 128, small
    head = bytes([ord("F"), ord("T"), 3, kind])
    return head + struct.pack("<I", zlib.crc32(head + data)) + data


def decode(frame):
    if frame[:2] != b"FT" or frame[2] != 3:
        raise ValueError("not a frame of version 3")
    head, (crc,), data = frame[:4], struct.unpack("<I", frame[4:8]), frame[8:]
    if zlib.crc32(head + data) != crc:
        raise ValueError("damaged frame")
    if head[3] & 128:
        if not 0 <= zstandard.frame_content_size(data) <= MAX_BODY:
            raise ValueError("frame too large, or of unknown size")
        data = zstandard.ZstdDecompressor().decompress(data)
    return head[3] & 127, cbor2.loads(data)


def covered(topic, frame):
    return b"fedtt-2\0" + hashlib.sha256(topic.encode() + b"\0" + frame).digest()


def opened(key, topic, sealed):
    """The frame of a sealed message, if `key` signed it for `topic`."""
    frame, signature = sealed[:-64], sealed[-64:]
    Ed25519PublicKey.from_public_bytes(key).verify(signature, covered(topic, frame))
    return frame


def plain(item):
    """The bytes of a typed array, tagged or not."""
    return item.value if isinstance(item, cbor2.CBORTag) else item


def f32(x):
    """Rounded to binary32, as the other end computes."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def tensors(groups):
    """The values of every tensor, lists of floats."""
    out = []
    for kind, sizes, scales, data in groups:
        data, base = plain(data), kind & 15
        width = [4, 2, 2, 1][base]
        scales = struct.unpack(f"<{len(plain(scales)) // 4}f", plain(scales))
        for i, size in enumerate(sizes):
            own, data = data[: size * width], data[size * width :]
            if kind & 16:
                own = bytes(own[lane * size + at] for at in range(size) for lane in range(width))
            if base == 0:
                values = struct.unpack(f"<{size}f", own)
            elif base == 1:
                halves = struct.unpack(f"<{size}H", own)
                values = [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
            elif base == 2:
                values = struct.unpack(f"<{size}e", own)
            else:
                values = [f32(byte * scales[i]) for byte in struct.unpack(f"<{size}b", own)]
            out.append(list(values))
    return out


def digest(state):
    hasher = hashlib.sha256()
    for values in state:
        hasher.update(struct.pack(f"<{len(values)}f", *values))
    return hasher.digest()


def trains(entry, mask, layout):
    """Whether a tensor of the layout trains under a manifest's mask."""
    name = entry["name"]
    in_head = name.startswith("head.")
    if in_head and not mask["head"]:
        return False
    layer, dot, index = name.rpartition(".core.")
    if not dot:
        return in_head or not name.endswith(".bias") or mask["biases"]
    count = sum(1 for other in layout if other["name"].startswith(f"{layer}.core."))
    cores, index = mask["cores"], int(index)
    if cores["schedule"] == "all":
        return True
    if cores["schedule"] == "one":
        return index == cores["round"] % count
    if cores["schedule"] == "listed":
        return index in cores["cores"].get(layer, [])
    return count <= 2 or index in (0, count - 1, 1 + cores["round"] % (count - 2))


class Run:
    def __init__(self, plan):
        self.plan, self.layout, self.began = plan["plan"], plan["layout"], plan["began"]
        self.state, self.manifest, self.done = None, None, None
        self.parts = {}

    def take(self, chunk):
        """A whole payload once its last chunk is there."""
        wanted = chunk["parcel"]
        parts = self.parts.setdefault(wanted["digest"], {})
        parts[chunk["index"]] = chunk["data"]
        if len(parts) < wanted["chunks"]:
            return None
        payload = b"".join(parts[i] for i in range(wanted["chunks"]))
        if len(payload) != wanted["size"] or hashlib.sha256(payload).digest() != wanted["digest"]:
            raise ValueError("damaged payload")
        return decode(payload)[1]


class Client:
    def __init__(self, options):
        self.options, self.runs, self.accepted, self.finished = options, {}, 0, False
        self.root = f"fedtt/{options.fleet}"
        self.pending = {}
        self.key, self.host = Ed25519PrivateKey.generate(), None
        self.session, self.beat = time.time_ns() // 1_000_000, 0
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=options.name, protocol=mqtt.MQTTv311)
        self.mqtt.on_connect, self.mqtt.on_message = self.on_connect, self.on_message
        will = self.sealed(self.topic("presence"), PRESENCE, self.presence(False))
        self.mqtt.will_set(self.topic("presence"), will, qos=1, retain=True)

    def topic(self, kind):
        return f"{self.root}/{kind}/{self.options.name}"

    def sealed(self, topic, kind, body):
        frame = encode(kind, body)
        return frame + self.key.sign(covered(topic, frame))

    def say(self, topic, kind, body, retain=False):
        self.mqtt.publish(topic, self.sealed(topic, kind, body), qos=1, retain=retain)

    def presence(self, online):
        self.beat += 1
        return {
            "online": online, "version": "python", "labels": [], "engine": "none",
            "bundles": [self.options.bundle], "examples": 10, "key": self.key.public_key().public_bytes_raw().hex(),
            "session": self.session, "beat": self.beat if online else LAST_BEAT,
        }

    def on_connect(self, client, _data, _flags, reason, _properties):
        if reason.is_failure:
            sys.exit(f"the broker refuses: {reason}")
        self.subscribe()
        self.say(self.topic("presence"), PRESENCE, self.presence(True), retain=True)

    def subscribe(self):
        runs = f"{self.root}/run/+"
        for topic in (f"{self.root}/host", self.topic("down"), f"{runs}/plan", f"{runs}/round", f"{runs}/change/+"):
            self.mqtt.subscribe(topic, qos=1)

    def on_message(self, client, _data, message):
        parts = message.topic[len(self.root) + 1 :].split("/")
        if not message.payload:
            return
        if self.host is None:
            if parts[0] == "host":
                key = bytes.fromhex(decode(message.payload[:-64])[1]["key"])
                opened(key, message.topic, message.payload)
                self.host = key
                self.subscribe()
            return
        try:
            kind, body = decode(opened(self.host, message.topic, message.payload))
        except InvalidSignature:
            print(f"forged, at {message.topic}", file=sys.stderr)
            return
        if parts[0] == "host":
            return
        if parts[0] == "down":
            if kind == VERDICT:
                self.verdict(body)
            return
        name, about = parts[1], parts[2]
        if kind == END:
            if self.runs.pop(name, None):
                self.finished = True
                client.disconnect()
            return
        if about == "plan":
            self.runs.setdefault(name, Run(body))
            return
        run = self.runs.get(name)
        if run is None:
            return
        if about == "round":
            if body["began"] != run.began or run.manifest and body["issued"] < run.manifest["issued"]:
                return
            run.manifest = body
        elif (payload := run.take(body)) is not None:
            self.move(run, payload, about == "change")
        self.work(name, run)

    def move(self, run, payload, change):
        """Takes in a whole state, or adds a change where it fits."""
        values = tensors(payload["tensors"])
        if not change:
            state = values
        elif run.state is None or digest(run.state) == payload["state"]:
            return
        else:
            state = [list(old) for old in run.state]
            for place, more in zip(payload["places"], values):
                state[place] = [f32(a + b) for a, b in zip(state[place], more)]
        if digest(state) == payload["state"]:
            run.state = state

    def work(self, name, run):
        manifest = run.manifest
        if not manifest or manifest["goal"] == "rest" or self.options.name not in manifest["cohort"]:
            return
        if run.state is None or digest(run.state) != manifest["state"]:
            self.mqtt.subscribe(f"{self.root}/run/{name}/state/+", qos=1)
            self.say(self.topic("up"), NEED, {"run": name, "state": manifest["state"]})
            return
        if run.done == (manifest["round"], manifest["state"]):
            return
        run.done = (manifest["round"], manifest["state"])
        trained = [e for e in run.layout if manifest["goal"] == "train" and trains(e, manifest["mask"], run.layout)]
        groups = []
        if trained:
            sizes = [len(run.state[run.layout.index(entry)]) for entry in trained]
            data = struct.pack("<f", self.options.step) * sum(sizes)
            groups = [[0, sizes, cbor2.CBORTag(85, b""), cbor2.CBORTag(85, data)]]
        update = {
            "run": name, "began": run.began, "round": manifest["round"], "state": manifest["state"], "device": self.options.name,
            "examples": 10, "steps": 1, "loss": 1.0, "seconds": 0.1, "joules": None, "measured": None,
            "sent": 0, "received": 0, "tensors": groups,
        }
        self.send(name, run, manifest["round"], encode(UPDATE, update))

    def send(self, name, run, number, payload):
        size = run.plan["wire"]["chunk"]
        parts = [payload[at : at + size] for at in range(0, len(payload), size)]
        parcel = {"digest": hashlib.sha256(payload).digest(), "size": len(payload), "chunks": len(parts)}
        self.pending[parcel["digest"]] = (name, number, parcel, parts)
        for index in range(len(parts)):
            self.chunk(parcel["digest"], index)

    def chunk(self, update, index):
        name, number, parcel, parts = self.pending[update]
        body = {"run": name, "round": number, "parcel": parcel, "index": index, "data": parts[index]}
        self.say(self.topic("up"), CHUNK, body)

    def verdict(self, body):
        outcome = body["outcome"]
        if isinstance(outcome, dict) and "missing" in outcome:
            for index in outcome["missing"]:
                self.chunk(body["update"], index)
        elif outcome in ("accepted", "duplicate"):
            self.accepted += self.pending.pop(body["update"], None) is not None
            print(f"round {body['round']}: {outcome}", flush=True)
        else:
            sys.exit(f"round {body['round']}: {outcome}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", required=True, metavar="HOST:PORT")
    parser.add_argument("--fleet", default="fedtt")
    parser.add_argument("--name", required=True)
    parser.add_argument("--bundle", required=True, help="hash of the run's bundle")
    parser.add_argument("--step", type=float, default=0.001)
    client = Client(parser.parse_args())
    host, port = client.options.broker.rsplit(":", 1)
    client.mqtt.connect(host, int(port))
    client.mqtt.loop_forever()
    print(f"{client.accepted} updates accepted")
    sys.exit(0 if client.finished and client.accepted else 1)


if __name__ == "__main__":
    main()
