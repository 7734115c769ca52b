"""The figures of the comparison, and the tables in Markdown."""

import statistics

NAMES = {
    "bound": "the bound: client and server without features, on disk",
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
# What a row is compared with, where that is not dms-worker on disk.
COMPARED = {"memory loop": "memory", "stub loop": "stub"}


class Results:
    def __init__(self, kept):
        self.repeats = kept["repeats"]

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


def cpu(found):
    return found["client_cpu_us"] + found["server_cpu_us"]


def p99(found):
    return found["p99_ms"]


def row(results, phase, name):
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
    ours = COMPARED.get(name, "dms")
    compares = phase != "latency" and name not in ("dms", "memory", "stub")
    ratio = f"{results.ratio(phase, ours, name):.2f} x" if compares else ""
    return [NAMES[name], messages, f"{at(client_cpu):.1f}", server, times, ratio]


def peers(kept):
    results = Results(kept)
    rows = []
    for phase, title in TITLES.items():
        rows.append([f"**{title}**", "", "", "", "", ""])
        rows += [row(results, phase, name) for name in NAMES if phase in results.repeats[0].get(name, {})]
    return markdown(["system", "messages/s [all repeats]", "client us/msg", "server us/msg", "p50 / p99 ms",
                     "dms-worker against it"], rows)


def markdown(heads, rows):
    numbers = {"messages/s [all repeats]", "client us/msg", "server us/msg", "p50 / p99 ms"}
    rules = ["---:" if head in numbers else "---" for head in heads]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rules, *rows]).replace("| --- ", "|---").replace(
        "| ---: ", "|---:")
