#!/usr/bin/env python3
"""What a round costs beside training, here and in Flower, on this machine, as a table of times and ratios.

    python flower.py [--clients 2,8,32] [--values 60000] [--rounds 60] [--repeats 3]

Both move as many float32 values down to every client and up again over loopback, in rounds without training, with all clients
in one process beside the server's. Flower runs what is fastest of it: the gRPC transport with clients that stay connected
(`start_server`), which keeps nothing, signs nothing and encrypts nothing. Contestants alternate, each figure is the median
over the repeats' medians. Needs flwr and numpy in the Python that runs it, and cargo.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import threading
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

HERE = pathlib.Path(__file__).resolve().parent
BENCH = ["cargo", "bench", "-q", "-p", "fedtt", "--bench", "rounds", "--", "--json"]


def arrays(values):
    """As many tensors as an adapter has, small and large."""
    import numpy

    rng = numpy.random.default_rng(0)
    return [rng.standard_normal(values // 24, dtype=numpy.float32) for _ in range(24)]


def flower_server(port, clients, rounds, values, report):
    import logging

    import flwr

    logging.getLogger("flwr").setLevel(logging.ERROR)
    starts = []

    class Timed(flwr.server.strategy.FedAvg):
        def configure_fit(self, *given, **named):
            starts.append(time.perf_counter())
            return super().configure_fit(*given, **named)

    strategy = Timed(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=flwr.common.ndarrays_to_parameters(arrays(values)),
    )
    config = flwr.server.ServerConfig(num_rounds=rounds)
    flwr.server.start_server(server_address=f"127.0.0.1:{port}", config=config, strategy=strategy)
    report.send([after - before for before, after in zip(starts, starts[1:])])


def flower_clients(port, clients, values):
    import logging

    import flwr

    logging.getLogger("flwr").setLevel(logging.ERROR)
    own = arrays(values)

    class Client(flwr.client.NumPyClient):
        def fit(self, parameters, config):
            return own, 100, {}

    def take_part():
        flwr.client.start_client(server_address=f"127.0.0.1:{port}", client=Client().to_client())

    threads = [threading.Thread(target=take_part) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def flower(clients, values, rounds):
    """Milliseconds of the median round."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    found, report = spawn.Pipe(duplex=False)
    server = spawn.Process(target=flower_server, args=(port, clients, rounds, values, report))
    server.start()
    report.close()
    time.sleep(2)
    others = spawn.Process(target=flower_clients, args=(port, clients, values))
    others.start()
    try:
        return 1000 * statistics.median(found.recv())
    finally:
        for process in (others, server):
            process.join(10)
            process.kill()


def ours(clients, values, rounds):
    """Milliseconds of the median round."""
    flags = ["--clients", str(clients), "--values", str(values), "--rounds", str(rounds)]
    done = subprocess.run([*BENCH, *flags], capture_output=True, text=True, cwd=HERE, check=True)
    return json.loads(done.stdout.splitlines()[-1])["median_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="2,8,32")
    parser.add_argument("--values", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{'clients':>8} {'Flower, ms':>11} {'FedTT, ms':>11} {'ratio':>7}")
    for clients in map(int, options.clients.split(",")):
        times = {flower: [], ours: []}
        for _ in range(options.repeats):
            for contestant, found in times.items():
                found.append(contestant(clients, options.values, options.rounds))
        theirs, own = (statistics.median(found) for found in times.values())
        print(f"{clients:>8} {theirs:>11.1f} {own:>11.1f} {own / theirs:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
