"""Pairs at the ends of the wire, each in turns: the sidecar and a loop by hand, HTTPS and HTTP, the producer and batches by hand."""

import json
import pathlib
import statistics
import subprocess
import time

from servers import DRIVER, SERVER, free_port
from turns import GROUP, drive, drop

CONNECTIONS = 64


def measure(place, repeats, seconds):
    return {"sidecar": sidecar(place, repeats, seconds), "https": https(place, repeats, seconds),
            "producer": producer(place, repeats, seconds)}


def sidecar(place, repeats, seconds):
    """The sidecar POSTs each message to an application that does nothing. The loop does the same by hand."""
    server = place.dms("sidecar-server", "--data-dir", place.folder("sidecar"))
    port = free_port()
    app = place.start("app", [DRIVER, "stub", "--listen", f"127.0.0.1:{port}"], "", port)
    url = f"http://127.0.0.1:{port}/app"
    rates, costs = [], []
    for repeat in range(repeats):
        found = {}
        for name in ("loop", "sidecar"):
            queue = f"{name}-{repeat}"
            sent = drive("worker", "produce", server, queue, "--seconds", seconds, "--expect", int(seconds * 30_000))["produced"]
            if name == "loop":
                done = drive("loop", "consume", server, queue, "--app", url, "--expect", sent, "--seconds", 60)
                found[name] = (done["acked"] / done["seconds"], done["client_cpu_us"])
            else:
                found[name] = forwarded(place, server, queue, url, sent)
            drop("worker", server, queue)
        rates.append(found["sidecar"][0] / found["loop"][0])
        costs.append(found["sidecar"][1] / found["loop"][1])
    app.stop()
    server.stop()
    return {"rate": statistics.median(rates), "cpu": statistics.median(costs)}


def forwarded(place, server, queue, url, sent):
    """Messages per second of `dms-worker run`, and its CPU time for each in microseconds, between a tenth and nine tenths of them:
    its start and its end are not part of it."""
    port = free_port()
    config = place.data / f"{queue}.yaml"
    worker = {"queue": queue, "group": GROUP, "concurrency": CONNECTIONS * 10, "handler": {"http": {"url": url}}}
    config.write_text(json.dumps({"dms": {"endpoint": server.url}, "admin": {"listen": f"127.0.0.1:{port}"}, "workers": [worker]}))
    process = place.start(queue, [SERVER, "run", "-c", config], f"http://127.0.0.1:{port}", port)
    queue_id = next(each["id"] for each in server.api("")["queues"] if each["name"] == queue)
    marks, until = [], time.monotonic() + 60
    for part in (sent // 10, sent * 9 // 10):
        while (done := consumed(server, queue_id)) < part:
            if time.monotonic() > until:
                raise SystemExit(f"the sidecar consumed {done} of {sent} messages in a minute")
            time.sleep(0.002)
        marks.append((time.monotonic(), cpu_seconds(process), done))
    process.stop()
    (begun, cpu, first), (ended, more, last) = marks
    return (last - first) / (ended - begun), (more - cpu) * 1e6 / (last - first)


def consumed(server, queue):
    """How many messages the groups of a queue have consumed. `queue` is its id."""
    return sum(group["consumed_messages"] for group in server.api(f"/{queue}/groups")["groups"])


def cpu_seconds(process):
    """CPU time of all threads so far, also of those that have ended."""
    words = pathlib.Path(f"/proc/{process.pids[0]}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / 100


def https(place, repeats, seconds):
    """The same client and server, with and without TLS, on kept connections."""
    config = place.data / "https.yaml"
    certificate, key = certificates(place.folder("tls"))
    config.write_text(json.dumps({"server": {"tls": {"certificate": str(certificate), "key": str(key)}}}))
    plain = place.dms("plain", "--data-dir", place.folder("plain"))
    secure = place.dms("secure", "-c", config, "--data-dir", place.folder("secure"), scheme="https")
    ratios = {"produce": [], "consume": []}
    for repeat in range(repeats):
        cost = {}
        for scheme, server, more in (("http", plain, []), ("https", secure, ["--ca", certificate])):
            queue = f"{scheme}-{repeat}"
            sent = drive("worker", "produce", server, queue, "--seconds", seconds, *more)
            done = drive("worker", "consume", server, queue, "--expect", sent["produced"], "--seconds", 60, *more)
            cost[scheme] = {"produce": sent, "consume": done}
        for phase, found in ratios.items():
            cpu = lambda scheme: cost[scheme][phase]["client_cpu_us"] + cost[scheme][phase]["server_cpu_us"]
            found.append(cpu("https") / cpu("http"))
    plain.stop()
    secure.stop()
    return {phase: statistics.median(found) for phase, found in ratios.items()}


def certificates(folder):
    """An authority and a certificate of it for loopback."""
    run = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    key, authority = folder / "server.key", folder / "ca.crt"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    run("req", "-x509", *curve, "-keyout", folder / "ca.key", "-out", authority, "-subj", "/CN=peers")
    run("req", *curve[:-2], "-keyout", key, "-out", folder / "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    run("x509", "-req", "-in", folder / "server.csr", "-CA", authority, "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", folder / "names", "-out", folder / "server.crt")
    chain = folder / "chain.crt"
    chain.write_text((folder / "server.crt").read_text() + authority.read_text())
    return chain, key


def producer(place, repeats, seconds):
    """A thousand tasks that send one message each to one producer, against 64 loops that send batches of ten."""
    server = place.dms("producer", "--data-dir", place.folder("producer"))
    ratios = []
    for repeat in range(repeats):
        rates = []
        for system, more in (("producer", ["--connections", 1_000, "--batch", 1]), ("worker", [])):
            queue = f"{system}-{repeat}"
            found = drive(system, "produce", server, queue, "--seconds", seconds, *more)
            rates.append(found["produced"] / found["seconds"])
            drop("worker", server, queue)
        ratios.append(rates[0] / rates[1])
    server.stop()
    return statistics.median(ratios)
