"""The tables: every figure with its budget and whether that is met."""

import statistics

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
TITLES = {
    "produce": "send; p50 / p99 of requests",
    "consume": "receive and acknowledge",
    "both": "both at once, sent + acknowledged",
    "latency": "200 messages/s, from before the send to the handler",
}
MET = {None: "", True: "yes", False: "NO"}


class Results:
    def __init__(self, kept):
        self.repeats, self.fdatasync = kept["repeats"], kept["fdatasync_ms"]

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
    return [NAMES[name], messages, f"{at(client_cpu):.1f}", server, times, ratio, words, MET[ok]]


def peers(kept):
    results = Results(kept)
    met = budgets(results)
    rows = []
    for phase, title in TITLES.items():
        rows.append([f"**{title}**", "", "", "", "", "", "", ""])
        rows += [row(results, phase, name, met.get((phase, name))) for name in NAMES
                 if phase in results.repeats[0].get(name, {})]
    return markdown(["system", "messages/s [all repeats]", "client us/msg", "server us/msg", "p50 / p99 ms",
                     "dms-worker against it", "budget", "met"], rows)


def alone(found):
    """What no other system is needed for."""
    far, one, many, backlog = found["network"], found["idle"]["1"], found["idle"]["1000"], found["backlog"]
    part = far["rate"] / far["allowed"]
    lines = [
        (f"round trip {far['round_trip_ms']:.0f} ms, 200 in flight, handler {far['work_ms']:.1f} ms",
         f"{far['rate']:,.0f} messages/s, {part:.2f} of Little's law", "at least 0.95", part >= 0.95),
        ("an idle worker: requests", f"{one['polls_per_wait']:.2f} per poll wait", "one", one["polls_per_wait"] <= 1.2),
        ("an idle worker: CPU", f"{one['cpu_percent']:.2f} %", "none to be measured (under 0.1 %)", one["cpu_percent"] < 0.1),
        ("an idle worker: resident", f"{one['resident_mb']:.0f} MB", "at most 20 MB", one["resident_mb"] <= 20),
        ("1,000 idle workers in a process: resident", f"{many['resident_mb']:.0f} MB", "at most 150 MB",
         many["resident_mb"] <= 150),
        ("1,000 idle workers: requests, CPU", f"{many['polls_per_wait']:.2f} per poll wait and worker, {many['cpu_percent']:.1f} %",
         "", None),
        ("consumption with 1 million waiting, against a short backlog", f"{backlog['ratio']:.2f} x", "at least 0.90 x",
         backlog["ratio"] >= 0.9),
        ("5 million waiting: the server's memory", f"{backlog['resident_mb']:.0f} MB", "at most 200 MB",
         backlog["resident_mb"] <= 200),
        ("5 million waiting: restart to the first answer", f"{backlog['restart_seconds']:.2f} s", "at most 2 s",
         backlog["restart_seconds"] <= 2),
        ("`dms-worker run`, cold start to the first poll", f"{found['cold_start']['ms']:.0f} ms", "at most 50 ms",
         found["cold_start"]["ms"] <= 50),
        ("crates of the lean library, with TLS", f"{found['lean']['crates']}", "at most 130", found["lean"]["crates"] <= 130),
    ]
    if "build" in found:
        took = found["build"]["seconds"]
        lines.append(("release build of everything, cold", f"{took:.0f} s", "at most 300 s", took <= 300))
    return markdown(["what", "measured", "budget", "met"], [[*words, MET[ok]] for *words, ok in lines])


def markdown(heads, rows):
    numbers = {"messages/s [all repeats]", "client us/msg", "server us/msg", "p50 / p99 ms"}
    rules = ["---:" if head in numbers else "---" for head in heads]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rules, *rows]).replace("| --- ", "|---").replace(
        "| ---: ", "|---:")
