"""PostgreSQL under Patroni on the loopback of this machine: three nodes with synchronous replication, and one etcd.

Alone, `patroni.py FILE` starts them, writes the URL for `server.postgres` into the file, and stops them when it is interrupted.
Needs Debian's packages postgresql and etcd-server, and the packages of requirements.txt. Root runs everything as the user postgres,
because PostgreSQL refuses to be run by root.
"""

import glob
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

NODES = ("n1", "n2", "n3")
# The least that Patroni accepts: a dead primary's key outlives it by this.
TTL = 20
PASSWORD = "secret"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, check, seconds):
    """Waits until `check` is truthy, and returns what it returned and how long that took."""
    began = time.monotonic()
    while True:
        found = check()
        if found:
            return found, time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Patroni:
    """The nodes, which a fault may kill, pause, or start again."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
        if not found or not shutil.which("etcd"):
            sys.exit("PostgreSQL or etcd is not installed: apt-get install postgresql etcd-server")
        self.programs = found[-1]
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.processes = {}
        self.ports = {name: (free_port(), free_port()) for name in NODES}
        self.etcd = (free_port(), free_port())
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
            os.chmod(self.folder, 0o711)
        for name in NODES:
            self.write(f"{name}.yml", json.dumps(self.settings(name), indent=1))

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        if self.user:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def launch(self, name, *command):
        environment = dict(os.environ, HOME=str(self.folder), PATH=f"{self.programs}:/usr/bin:/bin")
        identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        with open(self.folder / f"{name}.log", "ab") as log:
            try:
                self.processes[name] = subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, **identity)
            except PermissionError:
                sys.exit(f"the user postgres cannot run {command[0]}: make the venv with /usr/bin/python3, where all can read it")

    def settings(self, name):
        port, rest = self.ports[name]
        address = f"127.0.0.1:{port}"
        login = {"password": PASSWORD}
        return {
            "scope": "dms", "name": name, "log": {"level": "INFO"},
            "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
            "etcd3": {"hosts": f"127.0.0.1:{self.etcd[0]}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL, "loop_wait": 2, "retry_timeout": 3,
                    # A crashed primary is failed over at once instead of started again.
                    "primary_start_timeout": 0,
                    # Only a standby that has every answered commit may become the primary, and without one nothing is answered.
                    "synchronous_mode": True, "synchronous_mode_strict": True,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": {
                        "max_connections": 120, "wal_log_hints": "on", "shared_buffers": "64MB", "wal_keep_size": "256MB",
                        "wal_receiver_timeout": "5s", "wal_sender_timeout": "5s", "tcp_user_timeout": "10s"}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
                "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256", "host replication replicator 127.0.0.1/32 scram-sha-256"],
            },
            "postgresql": {
                "listen": address, "connect_address": address, "data_dir": str(self.folder / name),
                "bin_dir": self.programs, "pgpass": str(self.folder / f"pgpass-{name}"),
                "authentication": {"superuser": {"username": "postgres", **login},
                                   "replication": {"username": "replicator", **login},
                                   "rewind": {"username": "rewind", **login}},
                "parameters": {"unix_socket_directories": str(self.folder)},
            },
            "watchdog": {"mode": "off"},
        }

    def start(self):
        client, peer = (f"http://127.0.0.1:{port}" for port in self.etcd)
        self.launch("etcd", "/usr/bin/etcd", "--data-dir", str(self.folder / "etcd"), "--name", "e",
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--initial-cluster", f"e={peer}", "--logger", "zap", "--log-level", "warn")
        for name in NODES:
            self.start_node(name)
        self.await_healthy()

    def start_node(self, name):
        self.launch(name, sys.executable, "-m", "patroni", str(self.folder / f"{name}.yml"))

    def ask(self, name, path, body=None):
        """The status and the answer of a node's Patroni; zero where it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name][1], timeout=30 if body else 1)
        try:
            connection.request("POST" if body else "GET", path, body and json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def primary(self, other_than=None):
        return next((name for name in NODES if name != other_than and self.ask(name, "/primary")[0] == 200), None)

    def standby(self, other_than=None):
        """The synchronous one."""
        return next((name for name in NODES if name != other_than and self.ask(name, "/synchronous")[0] == 200), None)

    def is_healthy(self):
        followers = [name for name in NODES if self.ask(name, "/replica")[0] == 200]
        return self.primary() and self.standby() and len(followers) == len(NODES) - 1

    def await_healthy(self):
        wait(f"a primary and two standbys in {self.folder}", self.is_healthy, 180)

    def postgres(self, name):
        """The main process of a node's PostgreSQL, and those that it started."""
        try:
            main = int((self.folder / name / "postmaster.pid").read_text().split()[0])
            if not os.readlink(f"/proc/{main}/exe").startswith(self.programs):
                return []
            children = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text()
            return [main, *map(int, children.split())]
        except (OSError, ValueError, IndexError):
            return []

    def signal(self, name, number, *, patroni=True, postgres=True):
        # Patroni first: it must not see what happens to its PostgreSQL.
        patronis = [self.processes[name].pid] if patroni and self.processes[name].poll() is None else []
        for process in patronis + (self.postgres(name) if postgres else []):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass

    def kill(self, name, **parts):
        self.signal(name, signal.SIGKILL, **parts)
        if parts.get("patroni", True):
            self.processes[name].wait()

    def switch_over(self):
        primary, standby = self.primary(), self.standby()
        status, said = self.ask(primary, "/switchover", {"leader": primary, "candidate": standby})
        assert status == 200, f"{status} {said}"

    def url(self, ports=None):
        """The URL for `server.postgres`; `ports` are those of proxies in front of the nodes."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or [self.ports[name][0] for name in NODES])
        return f"postgres://postgres:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"

    def stop(self):
        for name in NODES:
            if name in self.processes:
                self.signal(name, signal.SIGCONT)
                self.kill(name)
        if "etcd" in self.processes:
            self.processes["etcd"].kill()
            self.processes["etcd"].wait()


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: patroni.py FILE")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    url = pathlib.Path(sys.argv[1])
    url.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="dms-patroni-", ignore_cleanup_errors=True) as folder:
        nodes = Patroni(folder)
        try:
            nodes.start()
            # It has a password. The file appears when it is complete.
            private = url.with_name(url.name + ".new")
            private.touch(mode=0o600)
            private.write_text(nodes.url() + "\n")
            private.rename(url)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            url.unlink(missing_ok=True)
            nodes.stop()


if __name__ == "__main__":
    main()
