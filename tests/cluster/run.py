"""Three servers on PostgreSQL under Patroni, traffic through all of them, and faults: run.py path/to/dms-worker [--faults N]

Each fault is followed by a probe that every queue is served again through every server, and by the time until then. At the end
nothing that was answered may be missing, nothing may have been stored twice, nothing that was acknowledged may have come back, and
FIFO queues have kept their order. Prints a table of the faults. See patroni.py for what has to be installed, and Debian's package
faketime, which sets the clocks of single servers.

`--only NAME` repeats one kind: `--only "a server is paused" --faults 100` takes a stopped owner over 100 times in a row.
"""

import argparse
import collections
import concurrent.futures
import email.utils
import glob
import http.client
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from history import Caller, History, Refused
from patroni import NODES, TTL, Patroni, free_port, wait
from proxy import Proxy

QUEUES = {"orders": "FIFO", "invoices": "FIFO", "mails": "NORMAL", "events": "NORMAL"}
TAKEOVER = 3
# By when everything is served again: what Patroni needs, what a take-over needs, and what a busy machine adds.
SERVED_WITHIN = 90
# How far the wall clocks are from the right time, in seconds: over the borders of the tables of messages, which have 6 hours each.
SHIFTS = [0, 2_400, -10_800, 25_200, -90, -28_800, 18_000]


class Server:
    def __init__(self, binary, folder, number, patroni):
        self.binary, self.port, cluster = binary, free_port(), free_port()
        # In front of PostgreSQL, and in front of this server for the other ones.
        self.postgres = [Proxy(patroni.ports[name][0]) for name in NODES]
        self.hop = Proxy(cluster)
        self.log, self.config = folder / f"server-{number}.log", folder / f"server-{number}.yaml"
        queues = ", ".join(f"{{name: {name}, mode: {mode}, groups: [all]}}" for name, mode in QUEUES.items())
        url = folder / f"url-{number}"
        url.write_text(patroni.url([proxy.port for proxy in self.postgres]))
        self.config.write_text(f"""server:
  listen: 127.0.0.1:{self.port}
  postgres: {{url_file: {url}}}
  cluster: {{listen: "127.0.0.1:{cluster}", advertise: "http://127.0.0.1:{self.hop.port}", takeover_after: {TAKEOVER}s}}
  queues: [{queues}]
""")
        self.process, self.clock = None, folder / f"clock-{number}"
        # Durations are measured as they are. The file is read again each second, so that the clock of a running server jumps.
        self.environment = dict(os.environ, LD_PRELOAD=libfaketime(), FAKETIME_TIMESTAMP_FILE=str(self.clock),
                                FAKETIME_DONT_FAKE_MONOTONIC="1", FAKETIME_CACHE_DURATION="1", NO_FAKE_STAT="1")
        self.shift = self.latest = 0
        self.set_clock(0)

    def start(self):
        self.latest = self.shift
        with open(self.log, "ab") as log:
            command = [self.binary, "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def set_clock(self, shift):
        """Sets its wall clock to this many seconds from the right time. Returns whether its answers show that: they never carry an
        earlier time than before."""
        self.shift, written = shift, self.clock.with_suffix(".new")
        written.write_text(f"{shift:+}\n")
        written.replace(self.clock)
        is_shown = shift >= self.latest
        self.latest = max(shift, self.latest)
        return is_shown

    def shows_shift(self):
        """Whether its answers carry the time that was set."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/")
            said = email.utils.parsedate_to_datetime(connection.getresponse().headers["Date"]).timestamp()
            return abs(said - time.time() - self.shift) < 15
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, number):
        self.signal(number)
        self.process.wait(60)


def libfaketime():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        sys.exit("libfaketime is not installed: apt-get install faketime")
    return found[0]


class Stage:
    def __init__(self, binary, folder):
        self.patroni = Patroni(folder)
        self.servers = [Server(binary, folder, number, self.patroni) for number in range(3)]
        self.probe = Caller([server.port for server in self.servers], 0)
        self.paths, self.histories = {}, []
        # How much longer than PostgreSQL's own failover some queue was not served, after the last fault.
        self.beyond = None

    def start(self):
        self.patroni.start()
        for server in self.servers:
            server.start()
        wait("the servers serve", self.find_queues, SERVED_WITHIN)

    def find_queues(self):
        assert all(server.process.poll() is None for server in self.servers), "a server has ended"
        try:
            found = self.probe.call("GET", "/queues")["queues"]
            for queue in found:
                groups = self.probe.call("GET", f"/queues/{queue['id']}/groups")["groups"]
                path = f"/queues/{queue['id']}"
                self.paths[queue["name"]] = (path, f"{path}/groups/{groups[0]['id']}")
            return len(self.paths) == len(QUEUES)
        except (Refused, IndexError):
            return False

    def begin(self):
        ports = [server.port for server in self.servers]
        self.histories = [History(name, path, ports, seed) for seed, (name, path) in enumerate(self.paths.items(), 1)]

    def is_served(self, servers):
        """Whether each queue takes a message through each of these servers: its tags are a commit of its shard."""
        try:
            for server in servers:
                for name, (path, _) in self.paths.items():
                    tags = {"action": "create", "tags": [{"key": "probe", "value": name}]}
                    self.probe.call("POST", f"{path.replace('/queues/', '/queue/')}/tags/action", tags, port=server.port)
            return True
        except Refused:
            return False

    def others(self, victim):
        return [server for server in self.servers if server is not victim]

    # Each fault returns how long some queue was not served.

    def server_killed(self, turn):
        victim = self.servers[turn % 3]
        victim.end(signal.SIGKILL)
        took = self.await_served(self.others(victim))
        victim.start()
        return took

    def clocks_set_apart(self, turn):
        # All jump while they serve, and then some that are behind take over from one that is ahead, or the other way round. The clocks
        # stay apart during the faults that follow.
        shown = [server for number, server in enumerate(self.servers)
                 if server.set_clock(SHIFTS[(turn + 2 * number + 1) % len(SHIFTS)])]
        time.sleep(2)
        took = self.server_killed(turn)
        for server in {*shown, self.servers[turn % 3]}:
            wait(f"{server.log} shows that its clock was set", server.shows_shift, 30)
        return took

    def server_paused(self, turn):
        victim = self.servers[turn % 3]
        victim.signal(signal.SIGSTOP)
        took = self.await_served(self.others(victim))
        victim.signal(signal.SIGCONT)
        return took

    def server_restarted(self, turn):
        victim = self.servers[turn % 3]
        victim.end(signal.SIGTERM)
        took = self.await_served(self.others(victim))
        victim.start()
        return took

    def server_cut_off_from_postgres(self, turn):
        victim = self.servers[turn % 3]
        for proxy in victim.postgres:
            proxy.cut()
        took = self.await_served(self.others(victim))
        for proxy in victim.postgres:
            proxy.heal()
        return took

    def server_cut_off_from_others(self, turn):
        # Nobody takes its shards over: it beats. The others serve them again as soon as they reach it.
        victim = self.servers[turn % 3]
        victim.hop.cut()
        time.sleep(2 * TAKEOVER)
        victim.hop.heal()
        return self.await_served(self.servers)

    def postgres_crashed(self, _):
        primary = self.patroni.primary()
        self.patroni.kill(primary, patroni=False)
        return self.await_failover(primary)

    def primary_node_killed(self, _):
        primary = self.patroni.primary()
        self.patroni.kill(primary)
        took = self.await_failover(primary)
        self.patroni.start_node(primary)
        return took

    def primary_node_paused(self, _):
        primary = self.patroni.primary()
        self.patroni.signal(primary, signal.SIGSTOP)
        took = self.await_failover(primary)
        self.patroni.signal(primary, signal.SIGCONT)
        return took

    def primary_orphaned(self, _):
        primary = self.patroni.primary()
        self.patroni.kill(primary, postgres=False)
        # The old one goes on until then, and is served.
        wait("another primary", lambda: self.patroni.primary(primary), 3 * TTL)
        took = self.await_failover(primary)
        self.patroni.start_node(primary)
        return took

    def standby_lost(self, _):
        standby = self.patroni.standby()
        self.patroni.kill(standby)
        took = self.await_failover(standby)
        self.patroni.start_node(standby)
        return took

    def switched_over(self, _):
        primary = self.patroni.primary()
        self.patroni.switch_over()
        return self.await_failover(primary)

    def await_failover(self, gone):
        """The same after a fault of a node: until then, no commit is answered without a primary and a synchronous standby."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            own = pool.submit(wait, "a primary and a standby", lambda: self.patroni.primary(gone) and self.patroni.standby(gone),
                              SERVED_WITHIN)
            took = self.await_served(self.servers)
            self.beyond = max(0, took - own.result()[1])
        return took

    def await_served(self, servers):
        return wait("every queue is served", lambda: self.is_served(servers), SERVED_WITHIN)[1]

    def stop(self):
        for server in self.servers:
            if server.process and server.process.poll() is None:
                server.signal(signal.SIGCONT)
                server.process.kill()
                server.process.wait()
        self.patroni.stop()


# Faults of servers take seconds, and faults of PostgreSQL half a minute.
KINDS = [
    ("the clocks jump hours apart, and a server is killed", Stage.clocks_set_apart),
    ("a server is killed", Stage.server_killed), ("a server is paused and resumed", Stage.server_paused),
    ("a server is cut off from PostgreSQL", Stage.server_cut_off_from_postgres),
    ("PostgreSQL's primary crashes", Stage.postgres_crashed), ("a server is restarted in order", Stage.server_restarted),
    ("the other servers do not reach a server", Stage.server_cut_off_from_others),
    ("the primary's node is killed", Stage.primary_node_killed), ("a server is killed", Stage.server_killed),
    ("a switchover", Stage.switched_over), ("a server is paused and resumed", Stage.server_paused),
    ("the primary's node is paused and resumed", Stage.primary_node_paused),
    ("a server is restarted in order", Stage.server_restarted), ("the synchronous standby is lost", Stage.standby_lost),
    ("the clocks jump hours apart, and a server is killed", Stage.clocks_set_apart),
    ("a server is killed", Stage.server_killed), ("the primary loses its Patroni", Stage.primary_orphaned),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--faults", type=int, default=len(KINDS))
    parser.add_argument("--minutes", type=float, default=120, help="no new fault is begun after this")
    parser.add_argument("--only", help="a part of the name of a fault")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if not options.only or options.only in kind[0]]
    began, times = time.monotonic(), collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="dms-cluster-", ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        stage = Stage(str(pathlib.Path(options.binary).resolve()), folder)
        try:
            stage.start()
            stage.begin()
            for turn in range(options.faults):
                if time.monotonic() - began > options.minutes * 60:
                    break
                name, fault = kinds[turn % len(kinds)]
                time.sleep(1)
                stage.beyond = None
                took = fault(stage, turn)
                times[name].append((took, stage.beyond))
                stage.await_served(stage.servers)
                stage.patroni.await_healthy()
                print(f"{turn + 1:4} {name}: served again after {took:.1f} s", file=sys.stderr, flush=True)
            failed = finish(stage)
        except (TimeoutError, AssertionError):
            for server in stage.servers:
                print(server.log.read_text()[-4000:] if server.log.exists() else "", file=sys.stderr)
            raise
        finally:
            stage.stop()
    print_table(times)
    sys.exit(1 if failed else 0)


def finish(stage):
    for history in stage.histories:
        history.done.set()
    failed, sums = False, [0, 0, 0, 0, 0, 0]
    for history in stage.histories:
        for thread in history.threads:
            thread.join(300)
            assert not thread.is_alive(), f"{history.name} does not become empty"
        lost, came_back, late, twice = history.verdict()
        late = late if QUEUES[history.name] == "FIFO" else []
        for kind, numbers in (("lost", lost), ("acknowledged, and came back", came_back), ("out of order", late), ("stored twice", twice)):
            if numbers:
                failed = True
                last = max(history.answered)
                print(f"{history.name}: {kind}: {numbers[:20]}; the last answered is {last}", file=sys.stderr)
        found = (len(history.answered), len(history.settled), len(lost), len(came_back), len(late), len(twice))
        sums = [sum(pair) for pair in zip(sums, found)]
    print("answered sends {}, answered acknowledgements {}, lost {}, came back {}, out of order {}, stored twice {}".format(*sums))
    if failed:
        for server in stage.servers:
            print(server.log.read_text(), file=sys.stderr)
    return failed


def print_table(times):
    print("\n| fault | times | served again after (median, longest) | after PostgreSQL was ready (median, longest) |\n|---|---:|---|---|")
    show = lambda taken: f"{statistics.median(taken):.1f} s, {max(taken):.1f} s"
    for name, taken in times.items():
        beyond = [each for _, each in taken if each is not None]
        print(f"| {name} | {len(taken)} | {show([took for took, _ in taken])} | {show(beyond) if beyond else ''} |")
    print(f"| together | {sum(map(len, times.values()))} | | |")


if __name__ == "__main__":
    main()
