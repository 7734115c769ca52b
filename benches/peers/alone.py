"""What no other system is needed for: a slow network, idle workers, long backlogs, the start, the dependencies, the build."""

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from servers import ROOT, SERVER, free_port, quiet
from turns import GROUP, drive, drop

POLL_WAIT = 2
IDLE_SECONDS = 10
MANY = 1000


def measure(place, seconds, cold_build):
    found = {"network": network(place, seconds), "idle": idle(place), "polls": polls(place), "scrape": scrape(place),
             "sweep": sweep(place, seconds), "backlog": backlog(place), "cold_start": cold_start(place), "lean": lean()}
    if cold_build:
        found["build"] = cold(place)
    return found


def network(place, seconds, round_trip=20, concurrency=200, work=5):
    """Every request takes 20 ms longer, handlers 5 ms. By Little's law as many messages a second can be handled as places divided
    by how long each is taken: from the poll, over its round trip, to the end of the handler."""
    server = place.dms("network", "--faults", f"latency={round_trip}ms:1")
    enough = int(concurrency / (round_trip + work) * 1e3 * seconds * 4)
    drive("worker", "produce", server, "far", "--seconds", 60, "--expect", enough)
    queues = http.client.HTTPConnection(server.url.removeprefix("http://"))
    took = []
    for _ in range(30):
        started = time.perf_counter()
        queues.request("GET", "/v2/local/queues/none")
        queues.getresponse().read()
        took.append((time.perf_counter() - started) * 1e3)
    queues.close()
    handled = drive("worker", "consume", server, "far", "--seconds", seconds * 4, "--connections", concurrency // 10,
                    "--work-ms", work)
    server.stop()
    round_trip = statistics.median(took)
    return {"rate": handled["acked"] / handled["seconds"], "round_trip_ms": round_trip, "work_ms": handled["work_ms"],
            "allowed": concurrency / (round_trip + handled["work_ms"]) * 1e3}


def resident_kb(process):
    """What the kernel gives as resident, in KiB."""
    status = pathlib.Path(f"/proc/{process.pids[0]}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


class Workers:
    """`dms-worker run` with idle workers, each polling a server of its own."""

    def __init__(self, place, count):
        name = f"idle-{count}"
        self.server = place.dms(f"{name}-server")
        drive("worker", "produce", self.server, "idle", "--seconds", 0)
        worker = {"queue": "idle", "group": GROUP, "poll_wait": f"{POLL_WAIT}s", "handler": {"log": {}}}
        port = free_port()
        config = place.data / f"{name}.yaml"
        config.write_text(json.dumps({
            "dms": {"endpoint": self.server.url}, "admin": {"listen": f"127.0.0.1:{port}"},
            "workers": [{"name": f"w{index}", **worker} for index in range(count)]}))
        self.process = place.start(name, [SERVER, "run", "-c", config], f"http://127.0.0.1:{port}", port)
        until = time.monotonic() + 30
        while self.polls() < count and time.monotonic() < until:
            time.sleep(0.1)

    def polls(self):
        text = self.server.metrics()
        lines = re.findall(r'^dms_server_http_requests_total\{[^}]*operation="consume"[^}]*\} (\d+)', text, re.MULTILINE)
        waiting = re.findall(r"^dms_server_long_polls (\d+)", text, re.MULTILINE)
        return sum(map(int, lines + waiting))

    def cpu_ms(self):
        # In nanoseconds and not in ticks of 10 ms as elsewhere, because an idle worker needs less than a tick in the time of a
        # measurement. Threads that have ended are left out here; those of an idle worker do not end.
        times = pathlib.Path(f"/proc/{self.process.pids[0]}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in times) / 1e6

    def resident_mb(self):
        return resident_kb(self.process) / 1e3

    def stop(self):
        self.process.stop()
        self.server.stop()


def idle(place):
    """One worker and a thousand on an empty queue: what each process takes, and how often it polls."""
    found = {}
    for count in (1, MANY):
        workers = Workers(place, count)
        time.sleep(POLL_WAIT)
        polls, cpu, started = workers.polls(), workers.cpu_ms(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        waits = (time.monotonic() - started) / POLL_WAIT * count
        found[count] = {"polls_per_wait": (workers.polls() - polls) / waits, "resident_mb": workers.resident_mb(),
                        "cpu_percent": (workers.cpu_ms() - cpu) / (time.monotonic() - started) / 10}
        workers.stop()
    return {str(count): each for count, each in found.items()}


def polls(place, count=10_000, queues=20):
    """Consume calls that wait, each on a connection of its own, for messages that do not come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 1_000), hard), hard))
    config = place.data / "polls.yaml"
    config.write_text(json.dumps({"server": {"limits": {"connections": count + 100}, "quotas": {"queues": queues}}}))
    server = place.dms("polls", "-c", config)
    groups = [server.create(f"idle-{number}", GROUP) for number in range(queues)]
    host, port = server.url.removeprefix("http://").split(":")
    waiting = []
    for number in range(count):
        poll = socket.create_connection((host, int(port)), 10)
        poll.sendall(f"GET /v2/local/queues{groups[number % queues]}/messages?time_wait=60 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        waiting.append(poll)
        # No more at a time than the kernel keeps in the queue of the listener.
        until = time.monotonic() + 20
        while len(waiting) % 100 == 0 and (arrived := long_polls(server)) < len(waiting) and time.monotonic() < until:
            time.sleep(0.005)
    found = {"polls": arrived, "resident_mb": resident_kb(server) / 1e3}
    for poll in waiting:
        poll.close()
    server.stop()
    if arrived < count:
        print(f"only {arrived} of {count} consume calls wait; raise the limit of open files (ulimit -Hn)", file=sys.stderr)
    return found


def long_polls(server):
    return int(re.search(r"^dms_server_long_polls (\d+)", server.metrics(), re.MULTILINE)[1])


def scrape(place, queues=5_000):
    """The metrics of many queues, each with a group."""
    config = place.data / "scrape.yaml"
    config.write_text(json.dumps({"server": {"quotas": {"queues": queues}}}))
    server = place.dms("scrape", "-c", config)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: server.create(f"q-{number}", GROUP), range(queues)))
    took = []
    for _ in range(5):
        started = time.perf_counter()
        server.metrics()
        took.append((time.perf_counter() - started) * 1e3)
    server.stop()
    return {"ms": statistics.median(took)}


def sweep(place, seconds):
    """How the cost of a message changes as one thing at a time grows: `dms-worker bench --sweep`."""
    report = place.folder("sweep")
    quiet([SERVER, "-q", "bench", "--sweep", "--data-dir", place.folder("sweep-data"), "--duration", f"{max(1, round(seconds))}s",
           "--report", report])
    return json.loads((report / "sweep.json").read_text())


def backlog(place, rounds=3, part=100_000, long=1_000_000, longest=10_000_000):
    """Messages of 100 bytes on disk. A part of a long backlog is consumed in turns with a queue that holds this part alone; then
    the backlog grows to its longest, and the server is started again."""
    folder = place.folder("backlog")
    server = place.dms("backlog", "--data-dir", folder)
    small = ["--size", 100, "--seconds", 120]
    drive("worker", "produce", server, "long", *small, "--expect", long + rounds * part)
    ratios = []
    for turn in range(rounds):
        queue = f"short-{turn}"
        drive("worker", "produce", server, queue, *small, "--expect", part)
        rates = []
        for name in ("long", queue):
            found = drive("worker", "consume", server, name, "--expect", part, "--seconds", 60)
            rates.append(found["acked"] / found["seconds"])
        ratios.append(rates[0] / rates[1])
        drop("worker", server, queue)
    drive("worker", "produce", server, "long", *small, "--expect", longest - long)
    server.stop()
    started = time.monotonic()
    again = place.dms("backlog-again", "--data-dir", folder)
    again.api("")
    restart = time.monotonic() - started
    # Of a server that has them waiting and serves: what filling them in took is given back over time.
    drive("worker", "consume", again, "long", "--expect", part, "--seconds", 60)
    resident = resident_kb(again) / 1024
    again.stop()
    return {"ratio": statistics.median(ratios), "resident_mb": resident, "restart_seconds": restart}


def cold_start(place, times=5):
    """From the start of `dms-worker run` to the arrival of its first poll at a server that answers at once."""
    took = [first_poll(place) for _ in range(times)]
    return {"ms": statistics.median(took) * 1e3}


def first_poll(place):
    polled = threading.Event()
    queue = {"id": "q1", "name": "cold", "queue_mode": "NORMAL", "reservation": 4320, "created": 1, "max_msg_size_byte": 524288,
             "produced_messages": 0, "redrive_policy": "disable", "group_count": 1}
    group = {"id": "g1", "name": GROUP, "consumed_messages": 0, "available_messages": 0, "produced_messages": 0}
    answers = {"queues": {"queues": [queue], "total": 1}, "q1": queue,
               "groups": {"queue_id": "q1", "queue_name": "cold", "redrive_policy": "disable", "groups": [group]}}

    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes; nothing may hold the second one back.
        disable_nagle_algorithm = True

        def do_GET(self):
            last = self.path.split("?")[0].rsplit("/", 1)[-1]
            if last == "messages":
                polled.set()
            body = json.dumps(answers.get(last, [])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            """The process is killed while its connections are open."""

    with Quiet(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = place.data / "cold.yaml"
        worker = {"name": "cold", "queue": "cold", "group": GROUP, "handler": {"log": {}}}
        config.write_text(json.dumps({"dms": {"endpoint": f"http://127.0.0.1:{server.server_port}"}, "workers": [worker]}))
        started = time.monotonic()
        process = subprocess.Popen([SERVER, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not polled.wait(20):
                raise SystemExit("dms-worker run did not poll within 20 s")
            return time.monotonic() - started
        finally:
            process.kill()
            process.wait()
            server.shutdown()


def lean():
    """Crates of the library alone, TLS included, itself not counted."""
    tree = quiet(["cargo", "tree", "--locked", "-e", "normal", "--package", "dms-worker", "--prefix", "none", "--manifest-path",
                  ROOT / "Cargo.toml"])
    return {"crates": len({line.split(" (")[0] for line in tree.splitlines() if line}) - 1}


def cold(place):
    """The two commands of the README in a fresh clone, with nothing compiled before; the crates were fetched."""
    took = {}
    with tempfile.TemporaryDirectory(prefix="clone-", dir=place.data) as clone:
        quiet(["git", "clone", "-q", ROOT, clone])
        quiet(["cargo", "fetch", "--locked", "--manifest-path", f"{clone}/Cargo.toml"])
        for name, command in {"demo": ["run", "--release", "--", "demo"], "tests": ["test"]}.items():
            started = time.monotonic()
            quiet(["env", "-u", "CARGO_TARGET_DIR", "-C", clone, "cargo", *command])
            took[name] = time.monotonic() - started
    return took
