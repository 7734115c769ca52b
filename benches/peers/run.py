#!/usr/bin/env python3
"""Measures dms-worker, alone and beside other queues, and prints each goal of this project with whether it is reached.

    benches/peers/run.py                  about half an hour, plus the builds
    benches/peers/run.py --cold-build     also the two commands of the README, in a fresh clone
    benches/peers/run.py --only peers     one part: peers, ends (sidecar, HTTPS, producer), alone, cluster (PostgreSQL), or queues
    benches/peers/run.py --repeats 1 --seconds 1    a quick test, without reliable figures

Redis, NATS, RabbitMQ and PostgreSQL come from Debian's packages (installed if they are missing), the vendor's SDK from PyPI into a virtual
environment. Every system is driven by the same loops (src/), with messages of 1 KiB in batches of ten over 64 connections, its data
on the same disk. The systems take turns within each repeat, and figures are medians of the repeats: on a noisy machine, ratios are reliable
and absolute figures are not. All servers listen on loopback and end with this script.
"""

import argparse
import contextlib
import json
import pathlib
import signal
import statistics
import sys
import tempfile

import alone
import cluster
import ends
import figures
import goals
import plot
import queues
from servers import TARGET, Place, install, start_servers
from turns import SYSTEMS, fdatasync, sdk, turn


def compare(place, count, seconds):
    repeats, syncs = [], []
    servers = start_servers(place)
    for repeat in range(count):
        found = {}
        for name in SYSTEMS:
            print(f"repeat {repeat + 1} of {count}: {figures.NAMES[name]}", file=sys.stderr)
            if "latency" in SYSTEMS[name][2]:
                syncs.append(fdatasync(place.data))
            found[name] = turn(servers, name, repeat, seconds)
        found["sdk"] = sdk(servers, repeat, seconds)
        repeats.append(found)
    return {"fdatasync_ms": [statistics.median(each) for each in zip(*syncs)], "repeats": repeats}


def show(kept, drawing):
    heads, lines = goals.table(kept)
    tables = [figures.markdown(heads, lines)] if lines else []
    if "peers" in kept:
        tables.append(figures.peers(kept["peers"]))
        if drawing:
            drawing.write_text(plot.svg(kept["peers"]))
    if "cluster" in kept:
        tables.append(figures.cluster(kept["cluster"]))
    if "queues" in kept:
        tables.append(figures.queues(kept["queues"]))
    print("\n\n".join(tables))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each phase lasts")
    parser.add_argument("--only", choices=["peers", "ends", "alone", "cluster", "queues"], help="one part")
    parser.add_argument("--queues", type=int, default=100_000, help="how many queues there are in PostgreSQL in the part queues")
    parser.add_argument("--backlog", type=int, default=5_000_000, help="how many messages wait in PostgreSQL in the part cluster")
    parser.add_argument("--cold-build", action="store_true", help="run the commands of the README in a fresh clone, too")
    parser.add_argument("--data", type=pathlib.Path, default=TARGET, help="a directory on the disk to measure; not tmpfs")
    parser.add_argument("--json", type=pathlib.Path, help="where to keep all figures")
    parser.add_argument("--svg", type=pathlib.Path, help="where to draw the comparison")
    parser.add_argument("--from-json", type=pathlib.Path, help="print the tables of a run that was kept")
    args = parser.parse_args()
    if args.from_json:
        return show(json.loads(args.from_json.read_text()), args.svg)
    # As an exception, so that the servers end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    install()
    kept = {}
    parts = {"peers": lambda place: compare(place, args.repeats, args.seconds),
             "ends": lambda place: ends.measure(place, args.repeats, args.seconds),
             "alone": lambda place: alone.measure(place, args.seconds, args.cold_build),
             "cluster": lambda place: cluster.measure(place, args.repeats, args.seconds, args.backlog),
             "queues": lambda place: queues.measure(place, args.seconds, args.queues)}
    for name, measure in parts.items():
        if args.only in (None, name):
            print(name, file=sys.stderr)
            # In a folder of its own, because a part with millions of messages leaves little room for the next one.
            with (tempfile.TemporaryDirectory(prefix=f"peers-{name}-", dir=args.data) as data,
                  contextlib.ExitStack() as stack):
                kept[name] = measure(Place(stack, pathlib.Path(data)))
            # After each part, because the next one may fail.
            if args.json:
                args.json.write_text(json.dumps(kept, indent=1))
    show(kept, args.svg)


if __name__ == "__main__":
    main()
