"""What has to be installed, and the servers: ours, the bound, the stub, Redis, NATS and RabbitMQ, each on a free port of loopback."""

import contextlib
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target"
DRIVER = TARGET / "release" / "driver"
SERVER = TARGET / "release" / "dms-worker"
VENV = TARGET / "peers-venv"
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
RABBITMQCTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
PACKAGES = {"redis-server": "redis-server", "nats-server": "nats-server", RABBITMQ: "rabbitmq-server", "epmd": "erlang-base"}


def postgresql():
    """Where the newest PostgreSQL has its programs."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    return pathlib.Path(found[-1]) if found else None


def install():
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    missing += [] if postgresql() else ["postgresql"]
    if missing:
        root = [] if os.geteuid() == 0 else ["sudo"]
        quiet(root + ["apt-get", "update", "-q"])
        # RUNLEVEL keeps Debian from starting the services: they are started here, on ports of their own.
        quiet(root + ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-qy",
                      "--no-install-recommends", *missing])
    if not (VENV / "bin" / "python").exists():
        quiet([sys.executable, "-m", "venv", str(VENV)])
    quiet([VENV / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
           HERE / "requirements.txt"])
    build(ROOT, "--bin", "dms-worker")
    build(HERE)


def build(package, *more, target=TARGET):
    quiet(["cargo", "build", "--release", "--locked", "--target-dir", target, "--manifest-path", package / "Cargo.toml", *more])


def quiet(command):
    """Runs a command; what it prints is shown only if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that listens, and how to reach it."""

    def __init__(self, command, url, port, log, env=None, **identity):
        self.url, self.log = url, open(log, "w")
        # In the session of the script: Linux divides the processors among sessions first, and the ratios would depend on it.
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env={**os.environ, **(env or {})}, process_group=0, **identity)
        self.pids = [self.process.pid]
        self.wait_for(port)

    def wait_for(self, port):
        until = time.monotonic() + 90
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"a server ended by itself: {pathlib.Path(self.log.name).read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if time.monotonic() > until:
                raise SystemExit(f"{self.log.name}: nothing listens on {port}")
            time.sleep(0.005)

    def api(self, path, body=None):
        """Calls the API of a server of ours: GET, or POST with a body. `path` follows `/queues`."""
        data, head = (None, {}) if body is None else (json.dumps(body).encode(), {"Content-Type": "application/json"})
        request = urllib.request.Request(f"{self.url}/v2/local/queues{path}", data, head)
        return json.load(urllib.request.urlopen(request, timeout=10))

    def create(self, queue, group):
        """Creates a queue with a group at a server of ours, and returns the path of the group after `/queues`."""
        path = f"/{self.api('', {'name': queue})['id']}/groups"
        return f"{path}/{self.api(path, {'groups': [{'name': group}]})['groups'][0]['id']}"

    def metrics(self):
        """The metrics of a server of ours, as text."""
        return urllib.request.urlopen(self.admin + "/metrics", timeout=30).read().decode()

    def stop(self):
        if self.log.closed:
            return
        for pid in {self.process.pid, *self.pids}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


class Place:
    """Where servers keep their data and logs; they are stopped when the stack is left."""

    def __init__(self, stack, data):
        self.stack, self.data = stack, data

    def start(self, name, command, url, port, **more):
        server = Server(command, url, port, log=self.data / f"{name}.log", **more)
        self.stack.callback(server.stop)
        return server

    def folder(self, name):
        path = self.data / name
        path.mkdir(exist_ok=True)
        return path

    def dms(self, name, *options, scheme="http"):
        """A server of ours."""
        port, admin = free_port(), free_port()
        command = [SERVER, "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", *options]
        server = self.start(name, command, f"{scheme}://127.0.0.1:{port}", port)
        server.admin = f"http://127.0.0.1:{admin}"
        return server


def start_servers(place):
    """All that take turns; they idle while it is not theirs."""
    servers = {"durable": place.dms("durable", "--data-dir", place.folder("dms")), "memory": place.dms("memory")}
    port = free_port()
    bound = [DRIVER, "bound", "--listen", f"127.0.0.1:{port}", "--data", place.folder("bound")]
    servers["bound"] = place.start("bound", bound, f"http://127.0.0.1:{port}", port)
    port = free_port()
    servers["stub"] = place.start("stub", [DRIVER, "stub", "--listen", f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}", port)
    port = free_port()
    # No snapshots and no rewriting of the log meanwhile: what a patient operator would set for the sake of speed.
    redis = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", place.folder("redis"), "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
    servers["redis"] = place.start("redis", redis, f"redis://127.0.0.1:{port}/", port)
    port = free_port()
    nats = ["nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd", place.folder("nats")]
    servers["nats"] = place.start("nats", nats, f"nats://127.0.0.1:{port}", port)
    servers["rabbitmq"] = start_rabbitmq(place)
    return servers


def start_rabbitmq(place):
    with_names = start_epmd(place, "rabbitmq")
    return rabbitmq_node(place, "rabbitmq", "rabbitmq", with_names)


def start_rabbitmq_cluster(place, count=3):
    """Nodes of one cluster. Clients connect to the first one, which is where the leader of their queues is, too."""
    env = start_epmd(place, "rabbitmq-cluster")
    first, *others = [rabbitmq_node(place, "rabbitmq-cluster", f"rabbitmq-{number}", env) for number in range(count)]
    for node in others:
        for words in (["stop_app"], ["join_cluster", first.node], ["start_app"]):
            quiet(["env", *(f"{name}={value}" for name, value in env.items()), RABBITMQCTL, "-n", node.node, *words])
        first.pids += node.pids
    return first


def start_epmd(place, name):
    """Erlang's name server, which would be started in the background and never end; what its nodes have in common is returned."""
    port, folder = free_port(), place.folder(name)
    env = {"ERL_EPMD_PORT": str(port), "ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": str(folder)}
    place.start(f"epmd-{name}", ["epmd", "-address", "127.0.0.1", "-port", port], "", port, env=env)
    return env


def rabbitmq_node(place, home, name, env):
    # The cookie with which nodes and tools trust each other is in the home folder.
    port, folder = free_port(), place.folder(home) / name
    folder.mkdir()
    node = f"peers{port}@localhost"
    env = env | {"RABBITMQ_NODENAME": node, "RABBITMQ_NODE_PORT": str(port),
                 "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(folder), "RABBITMQ_LOG_BASE": str(folder),
                 "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_PID_FILE": str(folder / "pid"),
                 "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
                 "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
    server = place.start(name, [RABBITMQ], f"amqp://127.0.0.1:{port}/%2f", port, env=env)
    # The script becomes or starts the virtual machine; that is the process to count.
    server.pids, server.node = [int((folder / "pid").read_text())], node
    return server
