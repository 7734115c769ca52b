#!/usr/bin/env python3
"""What the dashboard costs the server, each figure with its limit and a verdict. Run it on a quiet machine:

    cargo build --release && tests/load/dashboard_cost.py [--program target/release/dms-worker] [--pairs 7] [--seconds 8]

Exits with 0 if every figure is within its limit. It measures with 1,000 groups:

* the time of a sample and the memory of a day, by the ignored test of the server (needs cargo)
* the CPU time of an idle server that samples
* the throughput with and without an open overview, in turns on one server; the verdict is on the median of the pairs
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUEUES, GROUPS = 100, 10
SAMPLING = ["cargo", "test", "--release", "-p", "dms-server", "--features", "dashboard", "--lib", "sampling_costs", "--", "--ignored", "--nocapture"]
results = []


def report(name, value, limit, unit):
    held = value <= limit
    results.append(held)
    print(f"{'ok    ' if held else 'FAILED'} {name}: {value:.3f} {unit}, at most {limit:g} {unit}", flush=True)


class Server:
    """`dms-worker serve` in memory, with 1,000 groups and a dashboard that may be read by everybody on this machine."""

    def __init__(self, program, directory):
        queue = "    - {{name: q-{0}, groups: [{1}]}}\n"
        groups = ", ".join(f"g-{number}" for number in range(GROUPS))
        queues = "".join(queue.format(number, groups) for number in range(QUEUES))
        config = pathlib.Path(directory) / "config.yaml"
        config.write_text(f'server:\n  listen: 127.0.0.1:0\n  quotas: {{queues: 1000}}\n  admin: {{listen: "127.0.0.1:0"}}\n  queues:\n{queues}')
        self.process = subprocess.Popen([program, "serve", "-c", str(config)], stderr=subprocess.PIPE, text=True)
        told = ""
        while "dashboard on" not in told:
            line = self.process.stderr.readline()
            if not line:
                sys.exit(f"the server ended: {told}")
            told += line
        self.api = re.search(r"serving on (\S+)", told).group(1)
        self.ui = urllib.parse.urlsplit(re.search(r"dashboard on (\S+)", told).group(1))
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class OpenPage:
    """An open overview: it is loaded once, and its stream of numbers is read."""

    def __init__(self, server):
        self.bytes = 0
        page = http.client.HTTPConnection(server.ui.netloc, timeout=30)
        page.request("GET", server.ui.path)
        shown = page.getresponse().read().count(b".trend")
        assert shown == QUEUES * GROUPS, f"the overview shows {shown} groups"
        self.stream = http.client.HTTPConnection(server.ui.netloc, timeout=30)
        self.stream.request("GET", server.ui.path + "events")
        self.socket = self.stream.sock
        self.answer = self.stream.getresponse()
        assert self.answer.status == 200, self.answer.status
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        try:
            while piece := self.answer.read1(65536):
                self.bytes += len(piece)
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def close(self):
        # Ends the wait of the reader, which must be over before the answer is closed under it.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.reader.join(10)
        self.answer.close()
        self.stream.close()


def throughput(program, server, seconds):
    command = [program, "bench", "--against", server.api, "--run", "both", "--duration", f"{seconds}s", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {done.stderr}")
    (run,) = json.loads(done.stdout)["runs"]
    return run["acknowledged_per_second"]


def sampling():
    done = subprocess.run(SAMPLING, cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"\(([0-9.]+) % of a core\), (\d+) bytes", done.stdout)
    if not found:
        sys.exit(f"{' '.join(SAMPLING)}: {done.stdout}{done.stderr}")
    report("a sample each second, by the test", float(found.group(1)), 1, "% of a core")
    report("memory of the charts after a day, by the test", int(found.group(2)) / 1e6, 18, "MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "target/release/dms-worker"))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=8, help="the duration of one half of a pair")
    parser.add_argument("--without-test", action="store_true", help="leave out what needs cargo")
    arguments = parser.parse_args()
    if not arguments.without_test:
        sampling()
    with tempfile.TemporaryDirectory() as directory:
        server = Server(arguments.program, directory)
        try:
            time.sleep(2)
            before, began = server.cpu_seconds(), time.monotonic()
            time.sleep(20)
            share = 100 * (server.cpu_seconds() - before) / (time.monotonic() - began)
            report("an idle server with 1,000 groups that samples", share, 1, "% of a core")
            throughput(arguments.program, server, 2)
            losses = []
            for number in range(arguments.pairs):
                speeds = {}
                # In turns, so that a machine that becomes slower or faster favours neither side.
                for is_open in [True, False] if number % 2 else [False, True]:
                    page = OpenPage(server) if is_open else None
                    speeds[is_open] = throughput(arguments.program, server, arguments.seconds)
                    if page:
                        assert page.bytes > 0, "the open page received no numbers"
                        page.close()
                losses.append(100 * (1 - speeds[True] / speeds[False]))
                print(f"       pair {number + 1}: {speeds[False]:.0f} messages/s without, {speeds[True]:.0f} with an open dashboard", flush=True)
            report(f"loss of throughput by an open dashboard, median of {arguments.pairs} pairs", statistics.median(losses), 2, "%")
        finally:
            server.stop()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
