"""PostgreSQL with a synchronous standby, and in it a queue like pgmq: rows that are read with `FOR UPDATE SKIP LOCKED`.

pgbench drives that queue: a client in C, which costs less than any other one would, so the comparison favors the queue.
"""

import os
import pathlib
import pwd
import re
import resource
import subprocess
import time

from servers import free_port, postgresql

# Enough memory and log for the messages of a run. What concerns durability is as it is delivered.
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 512MB
max_wal_size = 4GB
"""
TICKS = os.sysconf("SC_CLK_TCK")
# How long a message that was read stays invisible to other readers, in seconds.
HIDDEN = 60

SEND = "INSERT INTO queue (vt, message) SELECT clock_timestamp(), :body::jsonb FROM generate_series(1, {batch});\n"
# What `pgmq.read` and `pgmq.delete` do; the bodies go to the client. One row, because pgbench keeps no more.
RECEIVE = """
WITH next AS (
    SELECT id FROM queue WHERE vt <= clock_timestamp() ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE queue SET vt = clock_timestamp() + interval '{hidden} s', read_count = read_count + 1
    FROM next WHERE queue.id = next.id RETURNING queue.id, message
)
SELECT coalesce(array_agg(id), '{{}}') AS ids, string_agg(message::text, '') AS bodies FROM taken \\gset
DELETE FROM queue WHERE id = ANY (:ids::bigint[]);
"""
TABLE = """
DROP TABLE IF EXISTS queue;
CREATE TABLE queue (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    read_count int NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    vt timestamptz NOT NULL,
    message jsonb NOT NULL
);
CREATE INDEX ON queue (vt);
"""


class Pair:
    """A primary whose answers wait for its standby."""

    def __init__(self, place, name):
        self.place, self.bin, self.folder = place, postgresql(), place.folder(name)
        self.owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.owner:
            # PostgreSQL refuses to be run by root, and the folder of this run is private.
            os.chmod(place.data, 0o711)
            os.chown(self.folder, self.owner.pw_uid, self.owner.pw_gid)
        self.ports = free_port(), free_port()
        self.servers, data = [], [self.folder / "primary", self.folder / "standby"]
        self.run("initdb", "-D", data[0], "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        more = f"unix_socket_directories = '{self.folder}'\n"
        (data[0] / "postgresql.auto.conf").write_text(SETTINGS + more)
        self.start(data[0], self.ports[0])
        self.run("pg_basebackup", "-D", data[1], "-R", "-X", "stream", "-C", "-S", "standby", "-c", "fast", "-d",
                 self.url("application_name=standby"))
        self.start(data[1], self.ports[1])
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self.sql("SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        while self.sql("SELECT sync_state FROM pg_stat_replication") != "sync":
            if time.monotonic() > until:
                raise SystemExit(f"{self.folder}: the standby does not become synchronous")
            time.sleep(0.1)

    def identity(self):
        return {"user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []} if self.owner else {}

    def run(self, program, *words):
        done = subprocess.run([str(word) for word in (self.bin / program, *words)], cwd=self.folder, capture_output=True, text=True,
                              **self.identity())
        if done.returncode:
            raise SystemExit(f"{program}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, data, port):
        # At its end it waits for the clients, which have ended by then.
        server = self.place.start(f"{self.folder.name}-{data.name}", [self.bin / "postgres", "-D", data, "-p", port], "", port, **self.identity())
        self.servers.append(server)
        until = time.monotonic() + 60
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
            if time.monotonic() > until:
                raise SystemExit(f"{data}: PostgreSQL does not become ready")
            time.sleep(0.1)

    def url(self, more=""):
        return f"host=127.0.0.1 port={self.ports[0]} user=postgres dbname=postgres {more}"

    def sql(self, text):
        return self.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, self.url()).strip()

    def cpu_seconds(self):
        """CPU time of the primary and of the standby, also of their sessions that have ended."""
        return [with_children(server.process.pid) for server in self.servers]

    def wal(self):
        """The end of the log: bytes since its beginning."""
        return int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    def measured(self, act):
        """What `act` returns, a measurement, with what PostgreSQL took for it."""
        cpu, log = self.cpu_seconds(), self.wal()
        found = act()
        count = max(found["produced"] + found["acked"], 1)
        primary, standby = ((after - before) * 1e6 / count for before, after in zip(cpu, self.cpu_seconds()))
        return found | {"postgres_cpu_us": primary + standby, "standby_cpu_us": standby, "wal_bytes": self.wal() - log}

    def holder(self):
        """A session that keeps a snapshot until its input is closed."""
        held = subprocess.Popen([self.bin / "psql", "-X", "-q", "-A", "-t", self.url()], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
        self.place.stack.callback(held.kill)
        held.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM dms.shard;\n")
        held.stdin.flush()
        held.stdout.readline()
        return held


def with_children(pid):
    """CPU time of a process, of what it started, and of what it started and has ended."""
    def times(process, first, last):
        try:
            words = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0
        return sum(map(int, words[first:last])) / TICKS

    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return times(pid, 11, 15) + sum(times(child, 11, 13) for child in children)


def whole(seconds):
    """pgbench runs for whole seconds, and connects within them."""
    return ["-T", round(seconds) + 1]


class SqlQueue:
    """A queue like pgmq, in the phases of the other systems."""

    def __init__(self, pair, connections=64, batch=10, size=1024):
        self.pair, self.connections, self.batch = pair, connections, batch
        self.body = f'"{"x" * (size - 2)}"'
        self.scripts = {}
        for name, text in {"send": SEND, "receive": RECEIVE}.items():
            self.scripts[name] = pair.folder / f"{name}.sql"
            self.scripts[name].write_text(text.format(batch=batch, hidden=HIDDEN))

    def waiting(self):
        return int(self.pair.sql("SELECT count(*) FROM queue"))

    def drive(self, connections, **limits):
        """Runs scripts at once, and returns the number of runs of each, with the time and the CPU time that they took."""
        before, started, running = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), []
        for name, limit in limits.items():
            words = ["pgbench", "-n", "-M", "prepared", "-c", connections, "-j", 1, *limit, "-f", self.scripts[name], "-D",
                     f"body={self.body}", self.pair.url()]
            running.append((name, subprocess.Popen([str(self.pair.bin / words[0]), *map(str, words[1:])], stdout=subprocess.PIPE,
                                                   stderr=subprocess.STDOUT, text=True)))
        runs, seconds = {}, []
        for name, process in running:
            said = process.communicate()[0]
            if process.returncode:
                raise SystemExit(f"pgbench: {said}")
            runs[name] = int(re.search(r"actually processed: (\d+)", said)[1])
            # Without the time to connect.
            seconds.append(runs[name] / float(re.search(r"tps = ([\d.]+) \(without initial", said)[1]))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return runs, max(seconds), cpu

    def figures(self, produced, acked, seconds, cpu):
        return {"seconds": seconds, "produced": produced, "acked": acked, "server_cpu_us": 0,
                "client_cpu_us": cpu * 1e6 / max(produced + acked, 1)}

    def phases(self, seconds):
        self.pair.sql(TABLE)
        found = {"produce": self.pair.measured(lambda: self.produce(seconds)), "consume": self.pair.measured(self.consume)}
        # A table without what the phases before left behind.
        self.pair.sql(TABLE)
        return found | {"both": self.pair.measured(lambda: self.both(seconds))}

    def produce(self, seconds):
        runs, took, cpu = self.drive(self.connections, send=whole(seconds))
        return self.figures(runs["send"] * self.batch, 0, took, cpu)

    def consume(self):
        before = self.waiting()
        # Each run takes as many messages as there are, so the last ones of a connection may find none.
        runs = max(1, before // (self.batch * self.connections))
        _, took, cpu = self.drive(self.connections, receive=["-t", runs])
        return self.figures(0, before - self.waiting(), took, cpu)

    def both(self, seconds):
        runs, took, cpu = self.drive(self.connections // 2, send=whole(seconds), receive=whole(seconds))
        produced = runs["send"] * self.batch
        return self.figures(produced, produced - self.waiting(), took, cpu)
