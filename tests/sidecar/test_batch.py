"""Several messages in one request, with a verdict for each."""

import json

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from harness import Case

COLLECT = ", batch: {collect: {max_messages: 50, linger: 500ms}}"


def verdicts(request):
    """Each message says itself what becomes of it."""
    answer = [{"outcome": item["body"]["do"], "error": "so it is"} for item in request.json]
    return 200, {"Content-Type": "application/json"}, json.dumps(answer)


class Batches(Case):
    def test_each_message_has_its_verdict(self):
        app = self.app(verdicts)
        process = self.deliver(app, ", batch: consumed", failures=2, worker="    on_reject: discard")
        process.send(*[{"do": "done", "n": n} for n in range(18)], {"do": "retry"}, {"do": "reject"}, tags=["red"], attributes={"a": 1})
        process.until(available_messages=0, consumed_messages=19, produced_deadletters=1)
        self.assertEqual(process.end(), 0)
        for request in app.requests:
            self.assertEqual(int(request.headers["Dms-Batch"]), len(request.json))
            self.assertEqual((request.headers["Dms-Queue"], request.headers["Dms-Group"]), ("orders", "billing"))
            self.assertTrue(0 < int(request.headers["Dms-Deadline-Ms"]) <= 20_000)
        self.assertGreater(max(len(request.json) for request in app.requests), 1)
        items = [item for request in app.requests for item in request.json]
        done = [item["body"]["n"] for item in items if item["body"]["do"] == "done"]
        self.assertEqual(sorted(done), list(range(18)), "what is done comes once")
        again = [item["attempt"] for item in items if item["body"]["do"] == "retry"]
        self.assertEqual((again[0], again[-1]), (1, 2))
        self.assertEqual((items[0]["tags"], items[0]["attributes"]), (["red"], {"a": 1}))

    def test_they_can_be_collected_across_polls(self):
        app = self.app(lambda request: 204)
        process = self.deliver(app, COLLECT, worker="    concurrency: 100")
        process.send(*range(200))
        process.until(consumed_messages=200, available_messages=0)
        sizes = [len(request.json) for request in app.requests]
        self.assertGreater(max(sizes), 10)
        self.assertLessEqual(max(sizes), 50)
        self.assertEqual(sorted(item["body"] for request in app.requests for item in request.json), list(range(200)))
        self.assertEqual(process.end(), 0)

    def test_an_answer_that_is_no_verdict_acknowledges_nothing(self):
        app = self.app(lambda request: (200, {}, "ok"))
        process = self.deliver(app, ", batch: consumed", failures=1)
        process.send(1, 2)
        process.until(available_messages=0, produced_deadletters=2, consumed_messages=0)
        self.assertIn("no list of verdicts", process.status()["last_errors"][0]["error"])

    def test_the_whole_call_can_be_refused(self):
        app = self.app(lambda request: 422)
        process = self.deliver(app, ", batch: consumed", worker="    on_reject: discard")
        process.send(*range(10))
        process.until(consumed_messages=10)

    def test_events_come_as_a_batch_of_events(self):
        app = self.app(lambda request: 204)
        process = self.deliver(app, ", batch: consumed, format: cloudevents")
        process.send({"n": 1}, "text", attributes={"ce-type": "order.created", "tenant": 7})
        process.until(consumed_messages=2)
        events = []
        for request in app.requests:
            self.assertEqual(request.headers["Content-Type"], "application/cloudevents-batch+json")
            for item in request.json:
                message = HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(item).encode())
                events.append(from_http_event(message))
        self.assertEqual([event.get_data() for event in events], [{"n": 1}, "text"])
        self.assertEqual({event.get_type() for event in events}, {"order.created"})
        self.assertEqual({event.get_extension("tenant") for event in events}, {7})
        self.assertEqual(len({event.get_id() for event in events}), 2)

    def test_what_cannot_work_is_refused(self):
        process = self.deliver(self.app(), COLLECT, worker="    concurrency: 32")
        self.assertEqual(process.end(None), 78)
        process.line(r"handler.http.batch.collect.max_messages: `50` is above the concurrency of 32")
