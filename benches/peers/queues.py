"""Many queues on one PostgreSQL: what they cost a server that takes them over, lists them, is scraped, and serves one of them.

The queues are written into the tables at once, each with a group, and then each is sent a message. Creating them one by one would take many minutes.
"""

import concurrent.futures
import contextlib
import http.client
import json
import random
import statistics
import time
import urllib.error
import urllib.request
import uuid

import cluster
from alone import resident_kb
from postgres import Pair, with_children
from servers import free_port
from turns import GROUP, drive, drop

IDLE_SECONDS = 4
PAGE = 100
# An answer of the API with all queues of a project has to stay below what clients read, 8 MiB.
PROJECTS = 100
# Rows like those of a queue that the server itself made, with other numbers, ids and names. A queue has two streams, its own and that of its
# delayed messages. A group has a stream of dead letters, and a cursor on each of the two that it reads.
ROWS = r"""
CREATE TEMP TABLE made (shard int, number bigint, id text, group_id text, project text, name text);
\copy made FROM '{file}'
CREATE TEMP TABLE model AS SELECT q.shard, q.number, q.facts::jsonb AS queue, tags, retention, g.number AS grouped, g.facts::jsonb AS facts
    FROM dms.queue q, dms.consumer_group g WHERE q.facts::jsonb ->> 'name' = 'model' AND g.facts::jsonb ->> 'queue' = q.facts::jsonb ->> 'id';
BEGIN;
INSERT INTO dms.queue (shard, number, facts, tags, retention) SELECT made.shard, made.number,
    queue || jsonb_build_object('number', made.number, 'id', made.id, 'project', made.project, 'name', made.name), tags, retention FROM made, model;
INSERT INTO dms.consumer_group (shard, number, facts) SELECT made.shard, made.number + 2,
    facts || jsonb_build_object('number', made.number + 2, 'id', made.group_id, 'queue', made.id) FROM made, model;
INSERT INTO dms.stream (shard, number, low, next, newest_ms) SELECT shard, number + more, 1, 1, 0 FROM made, unnest(ARRAY[0, 1, 3]) more;
INSERT INTO dms.reader (shard, number, stream, start, head, page, consumed)
    SELECT shard, number + 2 + more, number + 3 * more, 1, 1, 0, 0 FROM made, generate_series(0, 1) more;
UPDATE dms.image SET next_number = most FROM (SELECT shard, max(number) + 4 AS most FROM made GROUP BY shard) m WHERE image.shard = m.shard;
COMMIT;
VACUUM ANALYZE;
"""


def measure(place, seconds, count):
    pair = Pair(place, "many-queues")
    server = start(place, pair, "few")
    cluster.warm_up(server)
    found = {"queues": count, "shards": cluster.SHARDS, "few": costs(pair, server, seconds)}
    server.create("model", GROUP)
    # After an orderly stop the tables have the rows of its last commits.
    server.stop()
    names = make(pair, count)
    server = start(place, pair, "sending")
    all_answer(server, first_of(names))
    found["sent_per_second"] = send_to_each(server, names)
    server.stop()
    server, found["open"] = reopened(place, pair, names)
    found["many"] = costs(pair, server, seconds)
    found["tables_mb"] = int(pair.sql("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' "
                                      "AND relnamespace = 'dms'::regnamespace")) / 1e6
    found["move"] = move(place, pair, server, names)
    return found


def start(place, pair, name):
    """A server that allows as many queues as there may be."""
    config = place.data / f"{name}.yaml"
    config.write_text(json.dumps({"server": {
        "postgres": {"url": pair.url()}, "quotas": {"queues": 1_000_000},
        "cluster": {"listen": f"127.0.0.1:{free_port()}", "shards": cluster.SHARDS, "takeover_after": f"{cluster.TAKEOVER}s"}}}))
    return place.dms(name, "-c", config)


def all_answer(server, queues):
    """Waits until each of these queues is served."""
    def until_shown(queue):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            # The server waits for the owner of the queue for up to ten seconds itself.
            with contextlib.suppress(urllib.error.URLError, TimeoutError):
                return json.load(urllib.request.urlopen(f"{server.url}/v2/{queue}", timeout=30))
        raise SystemExit(f"the queue {queue} is not served within two minutes")

    with concurrent.futures.ThreadPoolExecutor(len(queues)) as pool:
        list(pool.map(until_shown, queues))


def make(pair, count):
    """Writes the rows of the queues. Returns their paths by shard."""
    made, numbers = {shard: [] for shard in range(cluster.SHARDS)}, {}
    file = pair.folder / "made"
    draw = random.Random(1)
    with open(file, "w") as lines:
        for index in range(count):
            project, name = f"project-{index % PROJECTS}", f"q-{index}"
            shard = shard_of(project, name)
            while True:
                queue = str(uuid.UUID(int=draw.getrandbits(128), version=4))
                if shard_of(queue) == shard:
                    break
            # Behind the numbers of what the server made itself.
            numbers[shard] = numbers.get(shard, 1_000) + 4
            lines.write(f"{shard}\t{numbers[shard]}\t{queue}\tg-{uuid.UUID(int=draw.getrandbits(128), version=4)}\t{project}\t{name}\n")
            made[shard].append(f"{project}/queues/{queue}")
    script = pair.folder / "made.sql"
    script.write_text(ROWS.format(file=file))
    pair.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script, pair.url())
    return made


def shard_of(*parts):
    """As crates/server/src/store/postgres/shards.rs has it."""
    mask, number = (1 << 64) - 1, 0xCBF29CE484222325
    for part in parts:
        for byte in part.encode() + b"\xff":
            number = (number ^ byte) * 0x100000001B3 & mask
    return ((number ^ number >> 32) * 0x9E3779B97F4A7C15 & mask) // (1 << 33) % cluster.SHARDS


def send_to_each(server, names, threads=64):
    """One message to each queue; messages per second."""
    queues, address = [queue for shard in names.values() for queue in shard], server.url.removeprefix("http://")

    def some(part):
        connection = http.client.HTTPConnection(address, timeout=60)
        for queue in part:
            connection.request("POST", f"/v2/{queue}/messages", b'{"messages":[{"body":"x"}]}', {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 201:
                raise SystemExit(f"a send to queue {queue} was answered with {answer.status}: {answer.read()}")
            answer.read()
        connection.close()

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, [queues[first::threads] for first in range(threads)]))
    return len(queues) / (time.monotonic() - began)


def first_of(names):
    """A queue of each shard."""
    return [queues[0] for queues in names.values()]


def reopened(place, pair, names):
    """A server that takes all shards: how long until it serves them, and what that cost."""
    began, cpu = time.monotonic(), sum(pair.cpu_seconds())
    server = start(place, pair, "opening")
    all_answer(server, first_of(names))
    return server, {"seconds": time.monotonic() - began, "server_cpu": with_children(server.process.pid),
                    "postgres_cpu": sum(pair.cpu_seconds()) - cpu, "resident_mb": resident_kb(server) / 1e3}


def costs(pair, server, seconds):
    """What the server takes while nothing happens, and what single calls take."""
    before, postgres = with_children(server.process.pid), sum(pair.cpu_seconds())
    time.sleep(IDLE_SECONDS)
    found = {"idle_percent": (with_children(server.process.pid) - before) / IDLE_SECONDS * 100,
             "idle_postgres_percent": (sum(pair.cpu_seconds()) - postgres) / IDLE_SECONDS * 100,
             "resident_mb": resident_kb(server) / 1e3}
    found["list"] = timed(lambda: urllib.request.urlopen(f"{server.url}/v2/project-1/queues", timeout=60).read())
    page = lambda: urllib.request.urlopen(f"{server.url}/v2/project-1/overview?limit={PAGE}", timeout=60).read()
    found["page"] = timed(page)
    found["scrape"] = timed(lambda: server.metrics())
    names = iter(f"new-{uuid.uuid4()}" for _ in range(100))
    found["create"] = timed(lambda: server.create(next(names), GROUP), 10)
    cluster.clean_page_cache()
    both = pair.measured(lambda: drive("worker", "both", server, "measured", "--seconds", seconds))
    drop("worker", server, "measured")
    # For a message that is sent and acknowledged.
    each = (both["produced"] + both["acked"]) / both["acked"]
    cost = {key: both[key] * each for key in ("server_cpu_us", "postgres_cpu_us", "standby_cpu_us")}
    found["both"] = {"rate": both["acked"] / both["seconds"], "wal_bytes": both["wal_bytes"] / both["produced"], **cost}
    return found


def timed(act, times=3):
    """The median time of a call in milliseconds, and how large its answer is."""
    took, answer = [], None
    for _ in range(times):
        began = time.perf_counter()
        answer = act()
        took.append((time.perf_counter() - began) * 1e3)
    return {"ms": statistics.median(took), "bytes": len(answer)}


def move(place, pair, server, names):
    """A second server joins, and is given half of the shards; then it is killed, and the first takes them back. For how long a queue of a shard that
    moves was not served."""
    probes, stop = dict(zip(names, first_of(names))), []
    with concurrent.futures.ThreadPoolExecutor(len(probes)) as pool:
        gaps = [pool.submit(longest_send, server, queue, stop) for queue in probes.values()]
        other = start(place, pair, "joining")
        cluster.await_spread(pair, 2)
        stop.append(True)
        longest = max(gap.result() for gap in gaps)
        owned = next(member["shards"] for member in status(server)["members"] if member["id"] != status(server)["this"])
        other.process.kill()
        other.process.wait()
        began = time.monotonic()
        list(pool.map(lambda shard: until_sent(server, probes[shard]), owned))
    return {"handed_over_seconds": longest, "killed_seconds": time.monotonic() - began, "shards": len(owned)}


def until_sent(server, queue):
    """Sends a message to the queue, as often as it takes."""
    until, body = time.monotonic() + 120, b'{"messages":[{"body":"x"}]}'
    while True:
        with contextlib.suppress(urllib.error.URLError, TimeoutError):
            request = urllib.request.Request(f"{server.url}/v2/{queue}/messages", body, {"Content-Type": "application/json"})
            return urllib.request.urlopen(request, timeout=30).read()
        if time.monotonic() > until:
            raise SystemExit(f"{queue} takes no message for two minutes")
        time.sleep(0.05)


def status(server):
    return json.load(urllib.request.urlopen(server.admin + "/admin/cluster", timeout=30))


def longest_send(server, queue, stop):
    """Sends to the queue, one message after the other, and returns how long the slowest took."""
    longest = 0
    while not stop:
        began = time.monotonic()
        until_sent(server, queue)
        longest = max(longest, time.monotonic() - began)
    return longest
