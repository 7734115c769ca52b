"""Our server on PostgreSQL with a synchronous standby, beside our server on disk, a RabbitMQ quorum queue of three nodes, and a queue
like pgmq in such a PostgreSQL. All share the cores of this machine."""

import concurrent.futures
import contextlib
import json
import os
import statistics
import sys
import time
import urllib.error

from figures import CLUSTER_NAMES, all_cpu
from postgres import Pair, SqlQueue
from servers import Place, free_port, start_rabbitmq_cluster
from turns import GROUP, drive, drop

SHARDS = 4
TAKEOVER = 5
# Of messages that wait by the million.
SMALL = ("--size", 100, "--seconds", 170)


def measure(place, repeats, seconds, backlog):
    with contextlib.ExitStack() as stack:
        # The other systems end before the rest is measured.
        found = {"repeats": compare(Place(stack, place.data), repeats, seconds)}
    pair = Pair(place, "postgres-alone")
    servers = [server(place, pair, 0)]
    found["held"] = held(pair, servers[0])
    found["backlog"] = waiting(pair, servers[0], backlog)
    servers.append(server(place, pair, 1))
    found["takeover"] = take_over(place, pair, servers)
    return found


def server(place, pair, number):
    """A server of a cluster."""
    name, cluster = f"member-{number}", f"127.0.0.1:{free_port()}"
    config = place.data / f"{name}.yaml"
    config.write_text(json.dumps({"server": {
        "postgres": {"url": pair.url()},
        "cluster": {"listen": cluster, "shards": SHARDS, "takeover_after": f"{TAKEOVER}s"}}}))
    return place.dms(name, "-c", config)


def compare(place, repeats, seconds):
    # One for each, so that neither pays for what the other one left to autovacuum and to checkpoints.
    pair, other = Pair(place, "postgres"), Pair(place, "pgmq")
    ours, disk = server(place, pair, 0), place.dms("disk", "--data-dir", place.folder("disk"))
    rabbitmq, queue = start_rabbitmq_cluster(place), SqlQueue(other)
    warm_up(ours, disk)
    turns = {"postgres": lambda repeat: phases("worker", ours, repeat, seconds, pair.measured),
             "disk": lambda repeat: phases("worker", disk, repeat, seconds),
             "rabbitmq": lambda repeat: phases("rabbitmq", rabbitmq, repeat, seconds),
             "pgmq": lambda _: queue.phases(seconds)}
    found = []
    for repeat in range(repeats):
        found.append({})
        for name, turn in turns.items():
            print(f"repeat {repeat + 1} of {repeats}: {CLUSTER_NAMES[name]}", file=sys.stderr)
            clean_page_cache()
            found[-1][name] = turn(repeat)
    return found


def clean_page_cache():
    """Writes what is dirty in it: the syncs of what is measured next are not to write what something else left there."""
    os.sync()


def warm_up(*servers):
    """What only the first messages cost, as the tables of this hour, is nobody's cost for a message."""
    for each in servers:
        drive("worker", "both", each, "warm-up", "--seconds", 0.5)
        drop("worker", each, "warm-up")


def phases(system, where, repeat, seconds, measured=lambda act: act()):
    queue, most = f"cluster-{repeat}", ["--seconds", seconds]
    found = {"produce": measured(lambda: drive(system, "produce", where, queue, *most))}
    expect = ["--expect", found["produce"]["produced"], "--seconds", seconds * 10]
    found["consume"] = measured(lambda: drive(system, "consume", where, queue, *expect))
    drop(system, where, queue)
    found["both"] = measured(lambda: drive(system, "both", where, queue, *most))
    drop(system, where, queue)
    return found


def held(pair, where, commits=10_000, bursts=3):
    """What a commit costs, and how long it takes, before and after others during which a session keeps a snapshot, so that nothing that
    they supersede can be removed."""
    def burst():
        clean_page_cache()
        # One message at a time over one connection: each is a commit.
        one = ["--connections", 1, "--batch", 1, "--size", 100, "--expect", commits, "--seconds", 170]
        found = pair.measured(lambda: drive("worker", "produce", where, "single", *one))
        return {"cpu_us": found["postgres_cpu_us"], "commit_ms": found["p50_ms"]}

    warm_up(where)
    before, session = burst(), pair.holder()
    after = [burst() for _ in range(bursts)][-1]
    session.stdin.close()
    session.wait(30)
    return {"commits": commits * bursts, "before": before, "after": after}


def fill(where, count, most=2_000_000):
    """Makes the long backlog, in pieces, because one run of the driver has a limit. Returns how long it took."""
    begun = time.monotonic()
    for made in range(0, count, most):
        drive("worker", "produce", where, "long", *SMALL, "--expect", min(most, count - made))
    return time.monotonic() - begun


def waiting(pair, where, long, part=100_000, rounds=3):
    """A part of a long backlog is consumed in turns with a queue that holds this part alone. Messages have 100 bytes."""
    filled, ratios = fill(where, long + rounds * part), []
    for turn in range(rounds):
        queue, costs = f"short-{turn}", {}
        drive("worker", "produce", where, queue, *SMALL, "--expect", part)
        clean_page_cache()
        for name in ("long", queue):
            costs[name] = pair.measured(lambda: drive("worker", "consume", where, name, "--expect", part, "--seconds", 60))
        drop("worker", where, queue)
        ratios.append((all_cpu(costs["long"]) / all_cpu(costs[queue]),
                       costs["long"]["postgres_cpu_us"] / costs[queue]["postgres_cpu_us"]))
    return {"messages": long, "filled_seconds": filled, "cpu": statistics.median(each for each, _ in ratios),
            "postgres_cpu": statistics.median(each for _, each in ratios)}


def take_over(place, pair, servers, rounds=3, queues=12):
    """A server is killed. The other one serves all queues after this time."""
    names = [f"taken-{number}" for number in range(queues)]
    paths = [servers[0].create(name, GROUP).split("/groups/")[0] for name in names]
    took = []
    for turn in range(rounds):
        await_spread(pair)
        servers[1].process.kill()
        servers[1].process.wait()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(queues) as pool:
            list(pool.map(lambda path: until_sent(servers[0], path), paths))
        took.append(time.monotonic() - began)
        servers[1] = server(place, pair, turn + 2)
    return {"takeover_after": TAKEOVER, "seconds": took}


def await_spread(pair, each=1):
    """Waits until two servers have shards, each at least so many."""
    until = time.monotonic() + 60
    while pair.sql(f"SELECT count(*) FROM (SELECT owner FROM dms.shard GROUP BY owner HAVING count(*) >= {each}) a WHERE owner <> ''") != "2":
        if time.monotonic() > until:
            raise SystemExit("the shards are not spread over two servers within a minute")
        time.sleep(0.1)


def until_sent(where, path):
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(urllib.error.URLError, TimeoutError):
            where.api(f"{path}/messages", {"messages": [{"body": "x"}]})
            return
        if time.monotonic() > until:
            raise SystemExit(f"{path} takes no message a minute after a server was killed")
        time.sleep(0.05)
