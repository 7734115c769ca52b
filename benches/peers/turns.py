"""The comparison: systems take turns within each repeat, each through the same phases."""

import json
import os
import pathlib
import statistics
import subprocess
import time

from servers import DRIVER, HERE, VENV

GROUP = "peers"

# The systems, their servers and their phases, in the order of the turns.
DURABLE = ("produce", "consume", "both", "latency")
SYSTEMS = {
    "bound": ("bound", "bound", ("produce", "consume", "both")),
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
    return run(command)


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def drop(system, server, queue):
    """Deletes a queue, and waits until the server has nothing left to do about it: that is not for the next phase to pay."""
    drive(system, "drop", server, queue)
    until, before = time.monotonic() + 60, written(server)
    while time.monotonic() < until:
        time.sleep(0.5)
        now = written(server)
        if now == before:
            return
        before = now


def written(server):
    """Bytes that the server has had written to a disk so far."""
    lines = [line for pid in server.pids for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def turn(servers, name, repeat, seconds):
    """One system's phases, each on a fresh queue; what is produced is then consumed."""
    system, where, phases = SYSTEMS[name]
    server, found, time_limit = servers[where], {}, ["--seconds", seconds]
    shared = "stub" if where == "stub" else f"peers-{repeat}"
    if "produce" in phases:
        found["produce"] = drive(system, "produce", server, shared, *time_limit)
        expect = ["--expect", found["produce"]["produced"]]
        found["consume"] = drive(system, "consume", server, shared, *expect, "--seconds", seconds * 3)
        drop(system, server, shared)
    else:
        found["consume"] = drive(system, "consume", server, shared, *time_limit)
    for phase in [phase for phase in ("both", "latency") if phase in phases]:
        queue = f"peers-{repeat}-{phase}"
        found[phase] = drive(system, phase, server, queue, *time_limit)
        drop(system, server, queue)
    return found


def sdk(servers, repeat, seconds):
    """The vendor's SDK against our server. It signs, which a server without keys does not ask for but lets pass."""
    server, queue = servers["durable"], f"peers-{repeat}-sdk"
    drive("worker", "produce", server, queue, "--seconds", 0.5)
    found = run([VENV / "bin" / "python", HERE / "sdk_loop.py", server.url, queue, GROUP, seconds])
    drop("worker", server, queue)
    found["client_cpu_us"] = found["cpu"] * 1e6 / max(found["acked"], 1)
    return {"consume": found}


def fdatasync(folder):
    """What one durable append of 4 KiB costs on this disk: the median and the 99th percentile, in milliseconds."""
    with open(folder / "fdatasync", "wb", buffering=0) as file:
        took = []
        for _ in range(500):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    cuts = statistics.quantiles(took, n=100)
    return cuts[49] * 1e3, cuts[98] * 1e3
