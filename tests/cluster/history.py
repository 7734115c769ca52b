"""Traffic through all servers, and the history that it leaves: what was answered, and what was received after that."""

import collections
import http.client
import json
import random
import threading
import time

PROJECT = "local"
# The shortest that the service accepts: how long a batch whose answer was lost keeps its messages from other consumers.
ACK_WAIT = 15
# How long a client waits for an answer.
PATIENCE = 12


class Refused(Exception):
    """Any answer that is no success, or none at all."""


class Caller:
    """A client of one thread: one connection at a time, to another server after each failure."""

    def __init__(self, ports, seed):
        self.ports, self.random, self.connection = ports, random.Random(seed), None

    def call(self, method, path, body=None, port=None):
        try:
            if self.connection is None or port is not None:
                self.close()
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", port or self.random.choice(self.ports), timeout=PATIENCE)
            headers = {"Content-Type": "application/json"} if body is not None else {}
            self.connection.request(method, f"/v2/{PROJECT}{path}", body and json.dumps(body), headers)
            answer = self.connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise Refused(f"{answer.status} {text[:200]!r}")
            return json.loads(text) if text else None
        except (OSError, http.client.HTTPException, Refused) as error:
            self.close()
            raise Refused(str(error)) from error

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class History:
    """One queue with one producer and one consumer. Each number is sent once, so a number that comes twice was leased twice."""

    def __init__(self, name, path, ports, seed):
        self.name, self.path = name, path
        self.lock, self.done = threading.Lock(), threading.Event()
        self.answered, self.settled, self.unsure = [], [], set()
        self.came_back, self.twice = [], []
        self.ends = None
        seeds = (seed * 2, seed * 2 + 1)
        self.threads = [threading.Thread(target=work, args=(Caller(ports, seed),), daemon=True)
                        for work, seed in zip((self.produce, self.consume), seeds)]
        for thread in self.threads:
            thread.start()

    def produce(self, caller):
        number = 0
        while not self.done.is_set():
            batch = [number, number + 1, number + 2]
            number += 3
            try:
                sent = caller.call("POST", f"{self.path[0]}/messages", {"messages": [{"body": one} for one in batch]})
                states = [message["state"] for message in sent["messages"]]
                self.answered += [one for one, state in zip(batch, states) if state == 0]
            except Refused:
                time.sleep(0.2)
            time.sleep(0.02)

    def consume(self, caller):
        settled, quiet = set(), None
        while True:
            try:
                leased = caller.call("GET", f"{self.path[1]}/messages?max_msgs=10&time_wait=1&ack_wait={ACK_WAIT}")
            except Refused:
                quiet = None
                time.sleep(0.2)
                continue
            numbers = [message["message"]["body"] for message in leased]
            if not numbers:
                # Until a lease whose answer was lost has ended, there may be more.
                quiet = quiet or time.monotonic()
                # The last send may still wait for an owner.
                is_sent = self.done.is_set() and not self.threads[0].is_alive()
                if is_sent and (not self.lacks() or time.monotonic() - quiet > 3 * ACK_WAIT):
                    return
                continue
            quiet = None
            self.came_back += [number for number in numbers if number in settled]
            # No lease has a message twice, so these were stored twice.
            self.twice += [number for number, times in collections.Counter(numbers).items() if times > 1]
            self.unsure.update(numbers)
            acks = [{"handler": message["handler"], "status": "success"} for message in leased]
            try:
                counts = caller.call("POST", f"{self.path[1]}/ack", {"message": acks})
            except Refused:
                continue
            if counts["success"] == len(acks):
                settled.update(numbers)
                self.settled += numbers

    def lacks(self):
        return not self.unsure.issuperset(list(self.answered))

    def verdict(self):
        """What was lost, what came back, what was out of order, and what was stored twice."""
        lost = sorted(set(self.answered) - self.unsure)
        answered = set(self.answered)
        in_order = [number for number in self.settled if number in answered]
        late = [(before, after) for before, after in zip(in_order, in_order[1:]) if after < before]
        return lost, self.came_back, late, self.twice
