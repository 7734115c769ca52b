"""What the tests share: the real binary in a separate process, and a small application that it delivers to.

Nothing sleeps for a fixed time: whoever waits is woken by what it waits for, or looks again soon, and gives up after PATIENCE.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import uuid

BINARY = os.environ.get("DMS_WORKER", str(pathlib.Path(__file__).parents[2] / "target/debug/dms-worker"))
PATIENCE = 30
# Where PostgreSQL is, if the servers of the tests keep their messages there: DMS_STORE=postgres run.py starts one.
POSTGRES = os.environ.get("DMS_SIDECAR_POSTGRES")


def until(condition, what):
    """Looks until the condition is met, and returns what it says."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"within {PATIENCE} s it did not come to this: {what}")


class Request:
    """A request as the application got it."""

    def __init__(self, path, headers, body):
        self.path, self.headers, self.body = path, headers, body
        self.at = time.monotonic()

    @property
    def json(self):
        return json.loads(self.body)


class App:
    """An application that keeps what is posted to it, and answers what `answer(request)` says: a status, or with it headers, or
    headers and a body; or "cut" to cut the connection. GET is answered with `health`."""

    def __init__(self, answer=lambda request: 200, unix=None):
        self.answer, self.unix, self.health = answer, unix, 200
        self.requests, self.connections, self.changed = [], 0, threading.Condition()
        self.server = None
        self.port = 0
        self.start()

    def start(self):
        """Listens, at the address of before where there was one."""
        app, live = self, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            posts = 0
            disable_nagle_algorithm = app.unix is None

            def setup(self):
                live.append(self.request)
                super().setup()

            def do_GET(self):
                self.say(*app.health) if isinstance(app.health, tuple) else self.say(app.health)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Request(self.path, self.headers, body)
                with app.changed:
                    app.connections += self.posts == 0
                    self.posts += 1
                    app.requests.append(request)
                    app.changed.notify_all()
                answer = app.answer(request)
                if answer == "cut":
                    self.close_connection = True
                    self.request.shutdown(socket.SHUT_RDWR)
                else:
                    self.say(*answer) if isinstance(answer, tuple) else self.say(answer)

            def say(self, status, headers=(), body=""):
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in dict(headers).items():
                        self.send_header(name, value)
                    if status != 204:
                        self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            address_family = socket.AF_UNIX if app.unix else socket.AF_INET
            request_queue_size = 128

            def server_bind(self):
                if app.unix:
                    self.socket.bind(app.unix)
                    self.server_name, self.server_port = "unix", 0
                else:
                    super().server_bind()

            def get_request(self):
                connection, address = super().get_request()
                return connection, address or ("unix", 0)

            def handle_error(self, *_):
                pass

        self.server = Server(self.unix or ("127.0.0.1", self.port), Handler)
        self.port, self.live = self.server.server_port, live
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        """Goes away as a process does that dies: nothing listens, and open connections are cut."""
        if not self.server:
            return
        self.server.shutdown()
        self.server.server_close()
        for connection in self.live:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server = None

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def wait(self, count):
        """The requests, when so many are there."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE):
                raise AssertionError(f"{len(self.requests)} requests came, {count} were waited for")
            return list(self.requests)

    def bodies(self):
        with self.changed:
            return [request.json for request in self.requests]


class Answer:
    """What an address answered."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


def call(address, method, path, body=None, headers=None):
    """One request to `host:port`."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Process:
    """A process of the binary that stays: `run` or `serve` of a configuration."""

    def __init__(self, directory, config, command="run", environment=None, **options):
        self.directory = pathlib.Path(directory)
        self.file = self.directory / "config.yaml"
        self.file.write_text(config)
        self.lines, self.changed = [], threading.Condition()
        environment = {**os.environ, "RUST_LOG": "", "NO_COLOR": "1", **(environment or {})}
        self.popen = subprocess.Popen(
            [BINARY, command, "-c", str(self.file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            cwd=directory, env=environment, **options)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.popen.stderr:
            with self.changed:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self.changed.notify_all()

    def line(self, pattern):
        """The first line on standard error that the pattern is found in, when it is there."""
        def found():
            return next((line for line in self.lines if re.search(pattern, line)), None)
        with self.changed:
            if not self.changed.wait_for(lambda: found() or self.popen.poll() is not None, PATIENCE) or not found():
                raise AssertionError(f"no line is like {pattern!r}:\n" + "\n".join(self.lines))
            return found()

    def address(self, of):
        """Where the server, the admin endpoint or the publisher listens."""
        pattern = rf"(?:{of}) on http://([^ ;,)]+)"
        return re.search(pattern, self.line(rf"^dms-worker: .*{pattern}")).group(1)

    def kill(self, number):
        self.popen.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Its exit code after a signal."""
        if number and self.popen.poll() is None:
            self.kill(number)
        try:
            code = self.popen.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError("it does not end:\n" + "\n".join(self.lines)) from None
        self.reader.join(PATIENCE)
        return code

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.reader.join(PATIENCE)
        self.popen.stderr.close()

    # The API of the server, as any client speaks it.

    def api(self, method, path, body=None):
        body = None if body is None else json.dumps(body)
        answer = call(self.address("server|serving"), method, "/v1.0/local" + path, body, {"Content-Type": "application/json"})
        if answer.status >= 300:
            raise AssertionError(f"{method} {path}: {answer.status} {answer.text}")
        return answer.json if answer.body else None

    def queue(self):
        return next(queue["id"] for queue in self.api("GET", "/queues")["queues"] if queue["name"] == "orders")

    def send(self, *bodies, **more):
        """Sends messages with these bodies to `orders`."""
        queue = self.queue()
        for first in range(0, len(bodies), 10):
            messages = [{"body": body, **more} for body in bodies[first:first + 10]]
            self.api("POST", f"/queues/{queue}/messages", {"messages": messages})

    def group(self):
        """The counters of `billing`."""
        return self.api("GET", f"/queues/{self.queue()}/groups?include_deadletter=true")["groups"][0]

    def until(self, **counters):
        """Waits until the counters of `billing` have these values."""
        def met():
            group = self.group()
            return all(group[name] == value for name, value in counters.items()) and group
        try:
            return until(met, f"{counters}")
        except AssertionError as error:
            raise AssertionError(f"{error}; found {self.group()}\n" + "\n".join(self.lines[-20:])) from None

    def admin(self, method, path, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return call(self.address("admin"), method, path, headers=headers)

    def status(self):
        return self.admin("GET", "/status").json["workers"][0]


class Case(unittest.TestCase):
    """A test with a directory of its own, whose processes and applications end with it."""

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def app(self, *arguments, **options):
        app = App(*arguments, **options)
        self.addCleanup(app.stop)
        return app

    def process(self, config, **options):
        process = Process(self.directory, config, **options)
        self.addCleanup(process.close)
        return process

    def directory_of(self, name):
        directory = pathlib.Path(self.directory, name)
        directory.mkdir(exist_ok=True)
        return directory

    def kept(self):
        """The lines of a server whose messages outlive its process: in a data directory, or in PostgreSQL."""
        return on_postgres() if POSTGRES else f"  data_dir: {self.directory}/data"

    def serve(self, queue):
        """A server in a separate process, with this queue."""
        config = f"server:\n  listen: 127.0.0.1:0\n  queues: [{queue}]\n{unless_kept()}"
        process = Process(self.directory_of("server"), config, "serve")
        self.addCleanup(process.close)
        return process

    def consume(self, app, server, worker=""):
        """A process that posts the queue `orders` of that server to this application."""
        config = f"""
dms: {{endpoint: 'http://{server.address("server|serving")}', project_id: local}}
workers:
  - queue: orders
    group: billing
    handler: {{http: {{url: '{app.url("/orders")}', health_interval: 50ms}}}}
{worker}
admin: {{listen: '127.0.0.1:0'}}
"""
        process = Process(self.directory_of("worker"), config)
        self.addCleanup(process.close)
        return process

    def run_worker(self, handler, failures=3, worker="", more="", server="", **options):
        """A process that delivers the queue `orders` to this handler, with an embedded server."""
        return self.process(configuration(handler, failures, worker, more, server), **options)

    def deliver(self, app, http="", **options):
        """A process that posts to this application."""
        return self.run_worker(f"{{http: {{url: '{app.url('/orders')}', health_interval: 50ms{http}}}}}", **options)


def configuration(handler, failures=3, worker="", more="", server=""):
    """A configuration with an embedded server: queue `orders`, group `billing`."""
    return f"""
dms: {{endpoint: embedded}}
server:
  listen: 127.0.0.1:0
  queues: [{{name: orders, max_consume_count: {failures}, groups: [billing]}}]
{server or unless_kept()}
workers:
  - queue: orders
    group: billing
    poll_wait: 1s
    handler: {handler}
{worker}
admin: {{listen: '127.0.0.1:0'}}
{more}
"""


def on_postgres():
    """The lines of a server whose messages are in PostgreSQL, in tables of their own. Requests wait until it has opened them."""
    schema = f"dms_{uuid.uuid4().hex}"
    return f"  postgres: {{url: '{POSTGRES}', schema: {schema}}}\n  cluster: {{listen: '127.0.0.1:0', shards: 2}}"


def unless_kept():
    """The lines of a server whose messages go with its process; in PostgreSQL they are kept, and nobody opens them again."""
    return on_postgres() if POSTGRES else ""
