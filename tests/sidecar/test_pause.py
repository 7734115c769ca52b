"""A server whose process is stopped for longer than a lease lasts, and continued."""

import http.client
import json
import signal
import time

from harness import PATIENCE, Case

# The shortest lease of the API is 15 s long.
LEASE, PAUSE = 15, 16


class Pause(Case):
    def setUp(self):
        super().setUp()
        self.server = self.serve("{name: orders, max_consume_count: 1, groups: [billing]}")
        queue = self.server.queue()
        self.group_path = f"/queues/{queue}/groups/{self.server.group()['id']}"

    def take(self):
        """The handler of one message."""
        path = f"{self.group_path}/messages?max_msgs=1&ack_wait={LEASE}"
        (message,) = self.server.api("GET", path)
        return message["handler"]

    def connect(self):
        connection = http.client.HTTPConnection(self.server.address("server|serving"), timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def acknowledge(self, connection, handler):
        lines = json.dumps({"message": [{"handler": handler, "status": "success"}]})
        connection.request("POST", f"/v1.0/local{self.group_path}/ack", lines, {"Content-Type": "application/json"})

    def test_acknowledgements_that_came_before_the_end_of_the_lease_count(self):
        self.server.send(*range(9))
        handlers = [self.take() for _ in range(9)]
        connections = [self.connect() for _ in handlers]
        self.server.kill(signal.SIGSTOP)
        # The system takes them in; the process does not run.
        for connection, handler in zip(connections[:8], handlers):
            self.acknowledge(connection, handler)
        time.sleep(PAUSE)
        self.server.kill(signal.SIGCONT)
        # The ninth consumer had as little time as the server: its lease goes on.
        self.acknowledge(connections[8], handlers[8])
        answers = [json.loads(connection.getresponse().read()) for connection in connections]
        self.assertEqual(answers, [{"success": 1, "fail": 0}] * 9)
        self.server.until(consumed_messages=9, available_messages=0, produced_deadletters=0)
        self.server.line(r"the process did not run for a while; open leases are extended")
        self.assertEqual(self.server.end(), 0)
