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
# The systems of the part `cluster`.
CLUSTER_NAMES = {
    "postgres": "dms-worker, on PostgreSQL with a synchronous standby",
    "disk": "dms-worker, on disk",
    "rabbitmq": "RabbitMQ quorum queue, three nodes",
    "pgmq": "a queue like pgmq, the same PostgreSQL, driven by pgbench",
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

    def ratio_of_repeats(self, ours, other, value):
        """The same of a value over all phases of a system."""
        return statistics.median(value(repeat[ours]) / value(repeat[other]) for repeat in self.repeats)


def rate(found):
    return (found.get("produced", 0) + found["acked"]) / found["seconds"]


def client_cpu(found):
    return found["client_cpu_us"]


def cpu(found):
    return found["client_cpu_us"] + found["server_cpu_us"]


def all_cpu(found):
    """CPU time of both ends, and of PostgreSQL where the messages are there."""
    return cpu(found) + found.get("postgres_cpu_us", 0)


def p99(found):
    return found["p99_ms"]


def messages(results, phase, name):
    """A cell: the median rate, and in brackets the lowest and the highest."""
    at = lambda value: results.median(name, phase, value)
    spread = results.all(name, phase, rate)
    if phase == "both":
        text = f"{at(lambda found: found['produced'] / found['seconds']):,.0f} + " \
               f"{at(lambda found: found['acked'] / found['seconds']):,.0f}"
    else:
        text = f"{statistics.median(spread):,.0f}"
    return f"{text} [{min(spread) / 1e3:,.0f}-{max(spread) / 1e3:,.0f} k]"


def row(results, phase, name):
    at = lambda value: results.median(name, phase, value)
    server = "" if name == "sdk" else f"{at(lambda found: found['server_cpu_us']):.1f}"
    has_times = name != "sdk" and results.all(name, phase, lambda found: found.get("p50_ms"))[0] is not None
    times = f"{at(lambda found: found['p50_ms']):.2f} / {at(p99):.2f}" if has_times else ""
    # At a steady rate there is nothing to compare.
    shown = "" if phase == "latency" else messages(results, phase, name)
    ours = COMPARED.get(name, "dms")
    compares = phase != "latency" and name not in ("dms", "memory", "stub")
    ratio = f"{results.ratio(phase, ours, name):.2f} x" if compares else ""
    return [NAMES[name], shown, f"{at(client_cpu):.1f}", server, times, ratio]


def peers(kept):
    results = Results(kept)
    rows = []
    for phase, title in TITLES.items():
        rows.append([f"**{title}**", "", "", "", "", ""])
        rows += [row(results, phase, name) for name in NAMES if phase in results.repeats[0].get(name, {})]
    return markdown(["system", "messages/s [all repeats]", "client us/msg", "server us/msg", "p50 / p99 ms",
                     "dms-worker against it"], rows)


def cluster(kept):
    results, rows = Results(kept), []
    for phase in ("produce", "consume", "both"):
        rows.append([f"**{TITLES[phase].split(';')[0]}**", "", "", "", "", ""])
        for name, title in CLUSTER_NAMES.items():
            cost = lambda key: f"{results.median(name, phase, lambda found: found[key]):.1f}"
            has_postgres = name in ("postgres", "pgmq")
            rows.append([title, messages(results, phase, name), cost("client_cpu_us"),
                         "" if name == "pgmq" else cost("server_cpu_us"), cost("postgres_cpu_us") if has_postgres else "",
                         "" if name == "postgres" else f"{results.ratio(phase, 'postgres', name):.2f} x"])
    return markdown(["system", "messages/s [all repeats]", "client us/msg", "server us/msg", "PostgreSQL us/msg",
                     "on PostgreSQL against it"], rows)


def queues(kept):
    """With many queues, beside a server with one; and what a million messages a second need, computed from the costs."""
    few, many, opened, move = (kept[name] for name in ("few", "many", "open", "move"))
    ms = lambda one, name: f"{one[name]['ms']:,.1f} ms"
    kb = lambda one, name: f"{one[name]['bytes'] / 1e3:,.0f} KB"
    rows = [
        ["CPU of the server, idle", f"{few['idle_percent']:.1f} %", f"{many['idle_percent']:.1f} %"],
        ["CPU of PostgreSQL, idle", f"{few['idle_postgres_percent']:.1f} %", f"{many['idle_postgres_percent']:.1f} %"],
        ["memory of the server", f"{few['resident_mb']:,.0f} MB", f"{many['resident_mb']:,.0f} MB"],
        ["list the queues of a project", ms(few, "list"), f"{ms(many, 'list')}, {kb(many, 'list')}"],
        ["a page of the overview of a project", ms(few, "page"), f"{ms(many, 'page')}, {kb(many, 'page')}"],
        ["a scrape of the metrics", ms(few, "scrape"), f"{ms(many, 'scrape')}, {kb(many, 'scrape')}"],
        ["create a queue and a group", ms(few, "create"), ms(many, "create")],
        ["messages sent and acknowledged", f"{few['both']['rate']:,.0f}/s", f"{many['both']['rate']:,.0f}/s"],
        ["CPU of the server for one", f"{few['both']['server_cpu_us']:.1f} us", f"{many['both']['server_cpu_us']:.1f} us"],
        ["CPU of PostgreSQL and its standby for one", f"{few['both']['postgres_cpu_us']:.1f} us", f"{many['both']['postgres_cpu_us']:.1f} us"],
        ["restart to the first answer of all shards", "", f"{opened['seconds']:.1f} s"],
        ["a shard is handed over to another server", "", f"{move['handed_over_seconds']:.1f} s"],
        [f"a server with {move['shards']} shards is killed, takeover_after 5 s", "", f"{move['killed_seconds']:.1f} s"],
    ]
    heads = ["what", "no queues", f"{kept['queues']:,} queues in {kept['shards']} shards"]
    return markdown(heads, rows) + "\n\n" + million(many["both"])


def million(both, rate=1_000_000, log=250e6):
    """What that many messages a second need, sent and acknowledged: arithmetic, not a measurement."""
    cores = lambda us: f"{us * rate / 1e6:.1f} cores"
    bytes_a_second = both["wal_bytes"] * rate
    rows = [
        ["servers", cores(both["server_cpu_us"])],
        ["primaries of PostgreSQL", cores(both["postgres_cpu_us"] - both["standby_cpu_us"])],
        ["standbys", cores(both["standby_cpu_us"])],
        ["log of PostgreSQL", f"{bytes_a_second / 1e9:.2f} GB/s"],
        [f"clusters of PostgreSQL, if the disk of a log takes {log / 1e6:.0f} MB/s", f"{-(-bytes_a_second // log):.0f}"],
    ]
    return markdown([f"for {rate:,} messages of 1 KiB a second, sent and acknowledged", "computed"], rows)


def markdown(heads, rows):
    numbers = {"messages/s [all repeats]", "client us/msg", "server us/msg", "PostgreSQL us/msg", "p50 / p99 ms"}
    rules = ["---:" if head in numbers else "---" for head in heads]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rules, *rows]).replace("| --- ", "|---").replace(
        "| ---: ", "|---:")
