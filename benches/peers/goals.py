"""The goals: every figure that this project wants to reach, what was measured, and whether it is reached."""

from figures import Results, all_cpu, client_cpu, cpu, p99

MET = {True: "yes", False: "NO"}


class Goals:
    """Lines of the table. A figure is reached if it is at least, or at most, its goal."""

    def __init__(self):
        self.lines = []

    def add(self, what, measured, goal, is_met):
        self.lines.append([what, measured, goal, MET[is_met]])

    def at_least(self, what, found, goal, text="{:.2f} x"):
        self.add(what, text.format(found), "at least " + text.format(goal), found >= goal)

    def at_most(self, what, found, goal, text="{:.2f} x"):
        self.add(what, text.format(found), "at most " + text.format(goal), found <= goal)


PHASES = {"produce": "send", "consume": "receive and acknowledge", "both": "both at once"}


def of_peers(goals, kept):
    found = Results(kept)
    for (phase, rates), most in zip({"produce": 0.92, "consume": 0.90, "both": 0.92}.items(), (1.10, 1.15, 1.10)):
        goals.at_least(f"rate against the bound of the machine: {PHASES[phase]}", found.ratio(phase, "dms", "bound"), rates)
        goals.at_most(f"CPU against the bound of the machine: {PHASES[phase]}", found.ratio(phase, "dms", "bound", cpu), most)
    for phase, least in {"produce": 1.35, "consume": 1.40, "both": 1.15}.items():
        goals.at_least(f"rate against Redis Streams with appendfsync always: {PHASES[phase]}",
                       found.ratio(phase, "dms", "redis"), least)
    for phase in ("produce", "both"):
        goals.at_most(f"p99 of requests that send, against the same Redis: {PHASES[phase]}",
                      found.median("dms", phase, p99), found.median("redis", phase, p99), "{:.1f} ms")
    p50 = lambda name: found.median(name, "latency", lambda one: one["p50_ms"])
    goals.at_most("200 messages/s, from before the send to the handler: p50, against the same Redis", p50("dms"), p50("redis"),
                  "{:.2f} ms")
    goals.at_most("200 messages/s, from before the send to the handler: p99, twice that of fdatasync and 1 ms",
                  found.median("dms", "latency", p99), 2 * kept["fdatasync_ms"][1] + 1, "{:.2f} ms")
    for name, other, where in (("dms", "loop", "on disk"), ("memory", "memory loop", "in memory")):
        goals.at_least(f"rate of the worker against a loop by hand, {where}", found.ratio("consume", name, other), 0.97)
        goals.at_most(f"CPU of the worker against a loop by hand, {where}", found.ratio("consume", name, other, client_cpu), 1.05)
    for phase, least in {"produce": 3.0, "consume": 1.5}.items():
        goals.at_least(f"rate against a RabbitMQ quorum queue: {PHASES[phase]}", found.ratio(phase, "dms", "rabbitmq"), least)
    goals.at_least("messages per CPU second of the client, against the vendor's Python SDK in a loop",
                   1 / found.ratio("consume", "dms", "sdk", client_cpu), 20, "{:.0f} x")
    written = found.median("dms", "both", lambda one: one["written_bytes"] / (one["produced"] * 1024))
    goals.at_most("bytes written for each byte of a body: both at once", written, 3.5, "{:.2f}")


def of_ends(goals, ends):
    sidecar, https, producer = ends["sidecar"], ends["https"], ends["producer"]
    goals.at_least("rate of the sidecar against a loop that consumes, POSTs and acknowledges", sidecar["rate"], 0.95)
    goals.at_most("CPU of the sidecar against such a loop", sidecar["cpu"], 1.10)
    goals.at_most("CPU of HTTPS against HTTP, client and server: send", https["produce"], 1.25)
    goals.at_most("CPU of HTTPS against HTTP, client and server: receive and acknowledge", https["consume"], 1.25)
    goals.at_least("rate of the producer from 1,000 tasks, against batches of ten by hand", producer, 0.9)


def of_alone(goals, alone):
    far, one, many, backlog = alone["network"], alone["idle"]["1"], alone["idle"]["1000"], alone["backlog"]
    goals.at_least(f"round trip {far['round_trip_ms']:.0f} ms, 200 in flight: {far['rate']:,.0f} messages/s, against Little's law",
                   far["rate"] / far["allowed"], 0.95)
    goals.at_most("an idle worker: requests per poll wait", one["polls_per_wait"], 1.2, "{:.2f}")
    goals.at_most("an idle worker: CPU", one["cpu_percent"], 0.1, "{:.2f} %")
    goals.at_most("an idle worker: resident", one["resident_mb"], 20, "{:.0f} MB")
    goals.at_most("1,000 idle workers in a process: resident", many["resident_mb"], 150, "{:.0f} MB")
    polls = alone["polls"]
    goals.at_most(f"{polls['polls']:,} idle long polls at a server: resident", polls["resident_mb"], 200, "{:.0f} MB")
    goals.at_least("rate of consuming with 1 million waiting, against a short backlog", backlog["ratio"], 0.9)
    goals.at_most("10 million waiting: the server's memory", backlog["resident_mb"], 64, "{:.0f} MiB")
    goals.at_most("10 million waiting: restart to the first answer", backlog["restart_seconds"], 1, "{:.2f} s")
    goals.at_most("scrape of the metrics of 5,000 queues", alone["scrape"]["ms"], 100, "{:.0f} ms")
    for curve in alone["sweep"]["curves"]:
        first, last = curve["points"][0]["value"], curve["points"][-1]["value"]
        goals.at_most(f"cost of a message as {curve['name']} grows from {first:,} to {last:,}: most against first",
                      max(point["relative"] for point in curve["points"]), 1.10)
    goals.at_most("`dms-worker run`, cold start to the first poll", alone["cold_start"]["ms"], 50, "{:.0f} ms")
    goals.at_most("crates of the lean library, with TLS", alone["lean"]["crates"], 130, "{}")
    for name, most in {"demo": 300, "tests": 480}.items():
        if name in alone.get("build", {}):
            what = {"demo": "`cargo run --release -- demo` to the end", "tests": "`cargo test`"}[name]
            goals.at_most(f"{what}, nothing compiled before", alone["build"][name], most, "{:.0f} s")


def of_cluster(goals, kept):
    found = Results(kept)
    for phase, title in PHASES.items():
        goals.at_least(f"rate on PostgreSQL, against our own disk server: {title}", found.ratio(phase, "postgres", "disk"), 0.5)
    for phase, title in PHASES.items():
        goals.at_least(f"rate on PostgreSQL, against a RabbitMQ quorum queue of three nodes: {title}",
                       found.ratio(phase, "postgres", "rabbitmq"), 3.0)
    # Each message is sent once and acknowledged once.
    whole = lambda value: lambda one: value(one["produce"]) + value(one["consume"])
    for title, value in (("PostgreSQL", lambda one: one["postgres_cpu_us"]), ("PostgreSQL, server and client", all_cpu)):
        goals.at_least(f"messages per CPU second of {title}, sent and then consumed, against a queue like pgmq",
                       found.ratio_of_repeats("pgmq", "postgres", whole(value)), 10.0, "{:.1f} x")
    cost = found.median("postgres", "both", lambda one: one["postgres_cpu_us"] * (one["produced"] + one["acked"]) / one["acked"])
    goals.at_most("CPU of PostgreSQL and its standby for a message that is sent and acknowledged", cost, 10, "{:.1f} us")
    log = found.median("postgres", "both", lambda one: one["wal_bytes"] / (one["produced"] * 1024))
    goals.at_most("bytes of PostgreSQL's log for each byte of a body, sent and acknowledged", log, 1.15, "{:.2f}")
    held, waiting, taken = kept["held"], kept["backlog"], kept["takeover"]
    grown = lambda key: held["after"][key] / held["before"][key]
    after = f"in the last of {held['commits']:,} commits while another session held a snapshot, against before"
    goals.at_most(f"CPU of PostgreSQL for a commit {after}", grown("cpu_us"), 1.10)
    goals.at_most(f"median time of a commit {after}", grown("commit_ms"), 1.10)
    for title, key in (("PostgreSQL", "postgres_cpu"), ("PostgreSQL, server and client", "cpu")):
        goals.at_most(f"CPU of {title} for a message with {waiting['messages']:,} waiting, against a short backlog", waiting[key], 1.10)
    goals.at_most(f"take-over after the death of a server, takeover_after {taken['takeover_after']} s: longest of {len(taken['seconds'])}",
                  max(taken["seconds"]), taken["takeover_after"] + 3, "{:.1f} s")


def table(kept):
    """The table of everything that was measured."""
    goals = Goals()
    for name, lines in {"peers": of_peers, "ends": of_ends, "alone": of_alone, "cluster": of_cluster}.items():
        if name in kept:
            lines(goals, kept[name])
    return ["what", "measured", "goal", "reached"], goals.lines
