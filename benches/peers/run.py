#!/usr/bin/env python3
"""Compares dms-worker with other queues in one run, and prints each figure with its budget.

    benches/peers/run.py                  about ten minutes, plus the builds
    benches/peers/run.py --cold-build     also the time of a clean release build
    benches/peers/run.py --only alone     one of the two tables: peers, or dms-worker alone
    benches/peers/run.py --repeats 1 --seconds 1    a quick test, without reliable figures

Redis, NATS and RabbitMQ come from Debian's packages (installed if they are missing), the vendor's SDK from PyPI into a virtual
environment. Every system is driven by the same loops (src/), with messages of 1 KiB in batches of ten over 64 connections, its data
on the same disk. The systems take turns within each repeat, and figures are medians of the repeats: on a noisy machine, ratios are reliable
and absolute figures are not. All servers listen on loopback and end with this script.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile

import alone
import table
from servers import TARGET, Place, install, start_servers
from turns import SYSTEMS, fdatasync_p50, sdk, turn


def compare(data, count, seconds):
    repeats, syncs = [], []
    with contextlib.ExitStack() as stack:
        servers = start_servers(Place(stack, data))
        for repeat in range(count):
            found = {}
            for name in SYSTEMS:
                print(f"repeat {repeat + 1} of {count}: {table.NAMES[name]}", file=sys.stderr)
                if "latency" in SYSTEMS[name][2]:
                    syncs.append(fdatasync_p50(data))
                found[name] = turn(servers, name, repeat, seconds)
            found["sdk"] = sdk(servers, repeat, seconds)
            repeats.append(found)
    return {"fdatasync_ms": statistics.median(syncs), "repeats": repeats}


def show(kept):
    tables = [make(kept[name]) for name, make in {"peers": table.peers, "alone": table.alone}.items() if name in kept]
    print("\n\n".join(tables))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each phase lasts")
    parser.add_argument("--only", choices=["peers", "alone"], help="one of the two tables")
    parser.add_argument("--cold-build", action="store_true", help="build everything from nothing, and say how long it took")
    parser.add_argument("--data", type=pathlib.Path, default=TARGET, help="a directory on the disk to measure; not tmpfs")
    parser.add_argument("--json", type=pathlib.Path, help="where to keep all figures")
    parser.add_argument("--from-json", type=pathlib.Path, help="print the tables of a run that was kept")
    args = parser.parse_args()
    if args.from_json:
        return show(json.loads(args.from_json.read_text()))
    install()
    kept = {}
    with tempfile.TemporaryDirectory(prefix="peers-", dir=args.data) as data:
        data = pathlib.Path(data)
        if args.only != "alone":
            kept["peers"] = compare(data, args.repeats, args.seconds)
        if args.only != "peers":
            with contextlib.ExitStack() as stack:
                kept["alone"] = alone.measure(Place(stack, data), args.seconds, args.cold_build)
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1))
    show(kept)


if __name__ == "__main__":
    main()
