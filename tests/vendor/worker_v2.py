"""The unmodified huaweicloudsdkdms sends a thousand messages of mixed shapes; a worker process of this package delivers them all.

The server and the worker are processes of their own: `serve`, durable and with keys, and `run`, which posts every message to
the small application below.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from sdk_v2 import Api

import harness
from harness import Checks

MESSAGES = 1000

WORKER = """
dms:
  endpoint: %(endpoint)s
  project_id: {project}
  auth: {{access_key: {key}, secret_key: {secret}}}
workers:
  - queue: orders
    group: billing
    handler:
      http: {{url: "http://127.0.0.1:%(port)d/orders", timeout: 10s}}
""".format(project=harness.PROJECT, key=harness.ACCESS_KEY, secret=harness.SECRET_KEY)


def shape(number):
    """The message of that number: strings, objects, Unicode, numbers, attributes, labels, delays."""
    body = [f"text {number} \"quoted\" \\ 队列", {"number": number, "nested": {"list": [1, 2.5, None, True]}},
            [number, "列表"], number, {"emoji": "🚀", "long": "x" * (number % 7 * 300)}][number % 5]
    message = {"body": body, "attributes": {"number": number, "text": "attribute", "flag": number % 2 == 0}}
    if number % 3 == 0:
        message["tags"] = ["red", "a-b_C"][: 1 + number % 2]
    if number % 50 == 0:
        message["delay_time"] = 500
    return message


class Application(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted to it, and fails every hundredth message once."""

    protocol_version = "HTTP/1.1"
    received = []
    failed = set()
    lock = threading.Lock()

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        attributes = json.loads(self.headers["Dms-Attributes"])
        number = attributes["number"]
        with self.lock:
            if number % 100 == 7 and number not in self.failed:
                self.failed.add(number)
                return self.answer(500)
            tags, deadline = self.headers.get("Dms-Tags", ""), int(self.headers["Dms-Deadline-Ms"])
            self.received.append((number, body, attributes, tags, deadline))
        return self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def deliveries(checks, url, binary):
    api = Api(url)
    queue = api.create_queue("orders", redrive_policy="enable", max_consume_count=5).id
    group = api.create_groups(queue, "billing")[0].id
    application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory, "worker.yaml")
        config.write_text(WORKER % {"endpoint": url, "port": application.server_port})
        worker = subprocess.Popen([binary, "run", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            for first in range(0, MESSAGES, 10):
                sent = api.send(queue, *[shape(number) for number in range(first, first + 10)])
                checks.equal("all sent", [message.state for message in sent], [0] * 10)
            done = until(lambda: len({entry[0] for entry in Application.received}) == MESSAGES, 60)
            checks.true("every message was delivered", done, len(Application.received))
            settled = until(lambda: api.groups(queue).groups[0].consumed_messages == MESSAGES, 30)
            checks.true("every message was acknowledged", settled)
        finally:
            worker.terminate()
            checks.equal("the worker ends with 0 on SIGTERM", worker.wait(timeout=60), 0)
    application.shutdown()
    for number, body, attributes, tags, deadline in Application.received:
        wanted = shape(number)
        checks.equal(f"body of {number}", body, wanted["body"])
        checks.equal(f"attributes of {number}", attributes, wanted["attributes"])
        checks.equal(f"labels of {number}", [tag for tag in tags.split(",") if tag], wanted.get("tags", []))
        checks.true(f"deadline of {number}", 0 < deadline <= 30_000)
    left = api.groups(queue, include_deadletter=True).groups[0]
    checks.equal("nothing is left", (left.available_messages, left.available_deadletters), (0, 0))
    checks.true("nothing comes any more", not api.consume(queue, group, time_wait=1))


def main():
    checks = Checks()
    with harness.server() as url:
        checks.section(deliveries, url, sys.argv[1])
    checks.finish()


if __name__ == "__main__":
    main()
