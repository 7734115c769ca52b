#!/usr/bin/env python3
"""Compares dms-worker with the queues that one would take instead, side by side in one run, and prints one table.

    benches/peers/run.py                  about seven minutes, and the builds before that
    benches/peers/run.py --repeats 1 --seconds 1    a quick look; no figures to quote

Redis, NATS and RabbitMQ come from Debian's packages (installed if they are missing), the vendor's SDK from PyPI into a virtual
environment. Every system is driven by the same loops (src/), with messages of 1 KiB in batches of ten over 64 connections, its data
on the same disk. The systems take turns within each repeat, and figures are medians of the repeats: on a noisy machine ratios hold
where absolute figures do not. All servers listen on loopback and end with this script.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
DRIVER = TARGET / "release" / "driver"
SERVER = TARGET / "release" / "dms-worker"
VENV = TARGET / "peers-venv"
PACKAGES = {"redis-server": "redis-server", "nats-server": "nats-server", "/usr/lib/rabbitmq/bin/rabbitmq-server":
            "rabbitmq-server", "epmd": "erlang-base"}
GROUP = "peers"


# --- what has to be there -----------------------------------------------------------------------------------------------------


def install():
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if missing:
        root = [] if os.geteuid() == 0 else ["sudo"]
        quiet(root + ["apt-get", "update", "-q"])
        # RUNLEVEL keeps Debian from starting the services: they are started here, on ports of their own.
        quiet(root + ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-qy",
                      "--no-install-recommends", *missing])
    if not (VENV / "bin" / "python").exists():
        quiet([sys.executable, "-m", "venv", str(VENV)])
    quiet([VENV / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
           HERE / "requirements.txt"])
    build = ["cargo", "build", "--release", "--locked", "--target-dir", str(TARGET)]
    quiet(build + ["--manifest-path", str(ROOT / "Cargo.toml"), "--bin", "dms-worker"])
    quiet(build + ["--manifest-path", str(HERE / "Cargo.toml")])


def quiet(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


# --- servers ------------------------------------------------------------------------------------------------------------------


class Server:
    """A server process, and how to reach it."""

    def __init__(self, command, url, port, env=None, log=None):
        self.url, self.log = url, open(log, "w")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env={**os.environ, **(env or {})}, start_new_session=True)
        self.pids = [self.process.pid]
        self.wait_for(port)

    def wait_for(self, port):
        until = time.monotonic() + 90
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"a server ended by itself: {pathlib.Path(self.log.name).read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if time.monotonic() > until:
                raise SystemExit(f"{self.log.name}: nothing listens on {port}")
            time.sleep(0.05)

    def stop(self):
        for pid in {self.process.pid, *self.pids}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_servers(stack, data):
    """All of them, each on a free port of loopback; they idle while it is not their turn."""

    def start(name, command, url, port, **more):
        server = Server(command, url, port, log=data / f"{name}.log", **more)
        stack.callback(server.stop)
        return server

    def folder(name):
        path = data / name
        path.mkdir()
        return path

    servers = {}
    for name, where in {"durable": ["--data-dir", folder("dms")], "memory": []}.items():
        port = free_port()
        command = [SERVER, "serve", "--listen", f"127.0.0.1:{port}", *where]
        servers[name] = start(name, command, f"http://127.0.0.1:{port}", port)
    port = free_port()
    servers["stub"] = start("stub", [DRIVER, "stub", "--listen", f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}", port)
    port = free_port()
    # No snapshots and no rewriting of the log meanwhile: what a patient operator would set for the sake of speed.
    redis = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", folder("redis"), "--save", "", "--appendonly",
             "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
    servers["redis"] = start("redis", redis, f"redis://127.0.0.1:{port}/", port)
    port = free_port()
    nats = ["nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd", folder("nats")]
    servers["nats"] = start("nats", nats, f"nats://127.0.0.1:{port}", port)
    servers["rabbitmq"] = start_rabbitmq(start, folder("rabbitmq"))
    return servers


def start_rabbitmq(start, folder):
    epmd_port, port = free_port(), free_port()
    env = {"ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    # Erlang's name server would be started in the background and stay for ever.
    start("epmd", ["epmd", "-address", "127.0.0.1", "-port", epmd_port], "", epmd_port, env=env)
    env |= {"HOME": str(folder), "RABBITMQ_NODENAME": f"peers{port}@localhost", "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(folder), "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
    server = start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], f"amqp://127.0.0.1:{port}/%2f", port, env=env)
    # The script becomes or starts the virtual machine; that is the process to count.
    server.pids = [int((folder / "pid").read_text())]
    return server


# --- measuring ----------------------------------------------------------------------------------------------------------------

# Who is driven, on which server, through which phases. The order is that of the turns.
DURABLE = ("produce", "consume", "both", "latency")
SYSTEMS = {
    "dms": ("worker", "durable", DURABLE),
    "redis": ("redis", "redis", DURABLE),
    "nats": ("nats", "nats", DURABLE),
    "rabbitmq": ("rabbitmq", "rabbitmq", DURABLE),
    "loop": ("loop", "durable", ("produce", "consume")),
    "memory": ("worker", "memory", ("produce", "consume", "both")),
    "memory loop": ("loop", "memory", ("produce", "consume")),
    "stub": ("worker", "stub", ("consume",)),
    "stub loop": ("loop", "stub", ("consume",)),
}


def drive(system, phase, server, queue, *more):
    command = [DRIVER, "measure", system, phase, "--url", server.url, "--pid", ",".join(map(str, server.pids)), "--queue",
               queue, *more]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def turn(servers, name, repeat, seconds):
    """One system's phases, each on a fresh queue; what is produced is then consumed."""
    system, where, phases = SYSTEMS[name]
    server, found, time_limit = servers[where], {}, ["--seconds", seconds]
    shared = "stub" if where == "stub" else f"peers-{repeat}"
    if "consume" in phases:
        if "produce" in phases:
            found["produce"] = drive(system, "produce", server, shared, *time_limit)
            expect = ["--expect", found["produce"]["produced"]]
            found["consume"] = drive(system, "consume", server, shared, *expect, "--seconds", seconds * 3)
            drive(system, "drop", server, shared)
        else:
            found["consume"] = drive(system, "consume", server, shared, *time_limit)
    for phase in set(phases) & {"both", "latency"}:
        queue = f"peers-{repeat}-{phase}"
        found[phase] = drive(system, phase, server, queue, *time_limit)
        drive(system, "drop", server, queue)
    return found


def sdk(servers, repeat, seconds):
    """The vendor's SDK against our server. It signs, which a server without keys does not ask for but lets pass."""
    server, queue = servers["durable"], f"peers-{repeat}-sdk"
    drive("worker", "produce", server, queue, "--seconds", 0.5)
    command = [VENV / "bin" / "python", HERE / "sdk_loop.py", server.url, queue, GROUP, seconds]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}")
    drive("worker", "drop", server, queue)
    found = json.loads(done.stdout)
    found["client_cpu_us"] = found["cpu"] * 1e6 / max(found["acked"], 1)
    return {"consume": found}


def fdatasync_p50(folder):
    """What one durable append of 4 KiB costs on this disk, in milliseconds."""
    with open(folder / "fdatasync", "wb", buffering=0) as file:
        took = []
        for _ in range(500):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


# --- the table ----------------------------------------------------------------------------------------------------------------

NAMES = {
    "dms": "dms-worker, on disk",
    "memory": "dms-worker, in memory",
    "loop": "reqwest by hand, same server on disk",
    "memory loop": "reqwest by hand, same server in memory",
    "stub": "worker, stub without storage",
    "stub loop": "reqwest by hand, stub without storage",
    "redis": "Redis Streams, appendfsync always",
    "nats": "NATS JetStream, file store (not synced)",
    "rabbitmq": "RabbitMQ quorum queue",
    "sdk": "vendor's Python SDK in a loop",
}


class Results:
    def __init__(self, repeats, fdatasync):
        self.repeats, self.fdatasync = repeats, fdatasync

    def all(self, name, phase, value):
        return [value(repeat[name][phase]) for repeat in self.repeats]

    def median(self, name, phase, value):
        return statistics.median(self.all(name, phase, value))

    def ratio(self, phase, ours, other, value=None):
        """The median of the ratios within the repeats: both sides of each were measured within a minute."""
        value = value or rate
        pairs = zip(self.all(ours, phase, value), self.all(other, phase, value))
        return statistics.median(ours / other for ours, other in pairs)


def rate(found):
    return (found.get("produced", 0) + found["acked"]) / found["seconds"]


def client_cpu(found):
    return found["client_cpu_us"]


def p99(found):
    return found["p99_ms"]


def budgets(results):
    """(phase, system) -> ratio of ours to that row, the budget in words, and whether it is met."""

    def least(phase, other, bound, ours="dms"):
        ratio = results.ratio(phase, ours, other)
        return f"{ratio:.2f} x", f"at least {bound} x", ratio >= bound

    met = {(phase, "redis"): least(phase, "redis", bound)
           for phase, bound in {"produce": 1.0, "consume": 1.0, "both": 1.1}.items()}
    met["produce", "rabbitmq"] = least("produce", "rabbitmq", 3.0)
    met["consume", "rabbitmq"] = least("consume", "rabbitmq", 1.5)
    met["consume", "stub loop"] = least("consume", "stub loop", 0.7, ours="memory")
    for ours, other in (("memory", "memory loop"), ("dms", "loop")):
        ratio, words, ok = least("consume", other, 0.95, ours=ours)
        cpu = results.ratio("consume", ours, other, client_cpu)
        met["consume", other] = (f"{ratio}; CPU {cpu:.2f} x", f"{words}; CPU at most 1.10 x", ok and cpu <= 1.10)
    cpu = 1 / results.ratio("consume", "dms", "sdk", client_cpu)
    met["consume", "sdk"] = (f"{cpu:.0f} x per CPU second", "at least 20 x per CPU second", cpu >= 20)
    worst = max(results.median("dms", phase, p99) for phase in ("produce", "both"))
    met["produce", "dms"] = (f"p99 {worst:.1f} ms", "p99 at most 15 ms", worst <= 15)
    written = results.median("dms", "both", lambda found: found["written_bytes"] / (found["produced"] * 1024))
    met["both", "dms"] = (f"{written:.2f} B/B", "at most 3.5 bytes written per payload byte", written <= 3.5)
    p50, most = results.median("dms", "latency", lambda found: found["p50_ms"]), results.fdatasync + 0.5
    last = results.median("dms", "latency", p99)
    words = f"p50 at most fdatasync {results.fdatasync:.2f} + 0.5 ms, p99 at most 2 ms"
    met["latency", "dms"] = (f"{p50:.2f} / {last:.2f} ms", words, p50 <= most and last <= 2)
    return met


def row(results, phase, name, budget):
    at = lambda value: results.median(name, phase, value)
    server = "" if name == "sdk" else f"{at(lambda found: found['server_cpu_us']):.1f}"
    has_times = name != "sdk" and results.all(name, phase, lambda found: found.get("p50_ms"))[0] is not None
    times = f"{at(lambda found: found['p50_ms']):.2f} / {at(p99):.2f}" if has_times else ""
    spread = results.all(name, phase, rate)
    if phase == "both":
        messages = f"{at(lambda found: found['produced'] / found['seconds']):,.0f} + " \
                   f"{at(lambda found: found['acked'] / found['seconds']):,.0f}"
    else:
        messages = f"{statistics.median(spread):,.0f}"
    # At a steady rate there is nothing to compare.
    messages = "" if phase == "latency" else f"{messages} [{min(spread) / 1e3:,.0f}-{max(spread) / 1e3:,.0f} k]"
    ratio, words, ok = budget or ("", "", None)
    if not ratio and name not in ("dms", "memory", "stub") and phase != "latency":
        ratio = f"{results.ratio(phase, 'dms', name):.2f} x"
    cells = [NAMES[name], messages, f"{at(client_cpu):.1f}", server, times, ratio, words, {None: "", True: "yes", False: "NO"}[ok]]
    return "| " + " | ".join(cells) + " |"


TITLES = {
    "produce": "send; p50 / p99 of requests",
    "consume": "receive and acknowledge",
    "both": "both at once, sent + acknowledged",
    "latency": "200 messages/s, from before the send to the handler",
}


def table(results):
    met = budgets(results)
    lines = ["| system | messages/s [all repeats] | client us/msg | server us/msg | p50 / p99 ms | dms-worker against it | budget | met |",
             "|---|---:|---:|---:|---:|---|---|---|"]
    for phase, title in TITLES.items():
        lines.append(f"| **{title}** | | | | | | | |")
        for name in NAMES:
            if phase in results.repeats[0].get(name, {}):
                lines.append(row(results, phase, name, met.get((phase, name))))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each phase lasts")
    parser.add_argument("--data", type=pathlib.Path, default=TARGET, help="a directory on the disk to measure; not tmpfs")
    parser.add_argument("--json", type=pathlib.Path, help="where to keep all figures")
    parser.add_argument("--from-json", type=pathlib.Path, help="print the table of a run that was kept")
    args = parser.parse_args()
    if args.from_json:
        kept = json.loads(args.from_json.read_text())
        return print(table(Results(kept["repeats"], kept["fdatasync_ms"])))
    install()
    with contextlib.ExitStack() as stack:
        data = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", dir=args.data)))
        repeats, fdatasync = [], fdatasync_p50(data)
        servers = start_servers(stack, data)
        for repeat in range(args.repeats):
            found = {}
            for name in SYSTEMS:
                print(f"repeat {repeat + 1} of {args.repeats}: {NAMES[name]}", file=sys.stderr)
                found[name] = turn(servers, name, repeat, args.seconds)
            found["sdk"] = sdk(servers, repeat, args.seconds)
            repeats.append(found)
    if args.json:
        args.json.write_text(json.dumps({"fdatasync_ms": fdatasync, "repeats": repeats}, indent=1))
    print(table(Results(repeats, fdatasync)))


if __name__ == "__main__":
    main()
