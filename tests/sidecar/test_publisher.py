"""The publisher endpoint: one result per message, when the service has them."""

import concurrent.futures
import datetime
import json
import socket

from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from harness import Case, call, until


class Publishing(Case):
    def publisher(self, app, settings="", http="", **options):
        more = f"publishers: [{{listen: '127.0.0.1:0', queue: orders{settings}}}]"
        self.sidecar = self.deliver(app, http, more=more, **options)
        return self.sidecar

    def post(self, body, headers=None, method="POST"):
        body = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return call(self.sidecar.address("publisher"), method, "/", body, headers)


class Messages(Publishing):
    def test_one_and_many_are_answered_each_by_itself(self):
        app = self.app()
        process = self.publisher(app)
        answer = self.post({"body": {"n": 1}, "attributes": {"a": 1}, "tags": ["red"]})
        self.assertEqual((answer.status, answer.json["state"]), (200, "sent"))
        self.assertTrue(answer.json["id"])
        answer = self.post([{"body": 2}, {"nothing": 1}, {"body": 3, "tags": ["a b"]}, {"body": 4}])
        states = [result["state"] for result in answer.json["messages"]]
        self.assertEqual((answer.status, states), (207, ["sent", "refused", "refused", "sent"]))
        requests = app.wait(3)
        self.assertEqual(sorted(str(request.json) for request in requests), ["2", "4", "{'n': 1}"])
        self.assertEqual([request.headers["Dms-Tags"] for request in requests if request.json == {"n": 1}], ["red"])
        self.assertEqual(process.end(), 0)

    def test_what_cannot_be_sent_is_refused_with_the_limit(self):
        self.publisher(self.app())
        for body in ["not json", "[]", "17", "{}", '{"body": 1, "delay_time": -1}', '{"body": 1, "tags": ["a","b","c","d"]}']:
            answer = self.post(body)
            self.assertEqual((answer.status, answer.json["state"]), (400, "refused"), body)
        answer = self.post({"body": "x" * 600_000})
        self.assertEqual(answer.status, 413)
        self.assertIn("at most 524288 bytes are allowed", answer.json["error"])
        answer = self.post([{"body": "x" * 500_000}] * 20)
        self.assertEqual(answer.status, 413)
        self.assertIn("at most 8388608 bytes are allowed", answer.json["error"])
        self.assertEqual(self.post("", method="GET").status, 405)
        self.assertEqual(self.post({"body": 1}, {"Origin": "http://evil.example"}).status, 403)

    def test_back_pressure_asks_to_come_again(self):
        self.publisher(self.app(), ", max_pending: 5, linger: 300ms")
        answer = self.post([{"body": n} for n in range(50)])
        states = [result["state"] for result in answer.json["messages"]]
        self.assertEqual((answer.status, states), (207, ["sent"] * 5 + ["not_taken"] * 45))
        self.assertEqual(answer.headers["Retry-After"], "1")

    def test_a_request_that_has_begun_is_answered_before_the_end(self):
        data = self.kept()
        app = self.app()
        process = self.publisher(app, ", linger: 500ms", server=data)
        host, port = process.address("publisher").split(":")
        body = json.dumps([{"body": n} for n in range(5)]).encode()
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode())
            self.assertIn(b" 100 ", connection.recv(1000))
            connection.sendall(body)
            self.assertEqual(process.end(), 0)
            self.assertIn(b" 200 ", connection.recv(1000))
        process = self.deliver(app, server=data)
        process.until(consumed_messages=5, available_messages=0)
        self.assertEqual(sorted(app.bodies()), list(range(5)))

    def test_a_service_that_is_not_there_is_503(self):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            config = f"""
dms: {{endpoint: 'http://127.0.0.1:{nobody.getsockname()[1]}'}}
publishers: [{{listen: '127.0.0.1:0', queue: orders}}]
"""
            self.sidecar = self.process(config)
            answer = self.post({"body": 1})
        self.assertEqual((answer.status, answer.json["state"]), (503, "not_taken"))
        self.assertEqual(answer.headers["Retry-After"], "1")

    def test_a_token_is_asked_for(self):
        self.publisher(self.app(), ", token: s3cret")
        for headers, status in [({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": "Bearer s3cret"}, 200)]:
            self.assertEqual(self.post({"body": 1}, headers).status, status, headers)

    def test_other_addresses_than_loopback_need_one(self):
        process = self.process("publishers: [{listen: '0.0.0.0:0', queue: orders}]\ndms: {endpoint: 'http://127.0.0.1:1'}\n")
        self.assertEqual(process.end(None), 78)
        process.line(r"publishers\[0\].listen: `0.0.0.0:0` can be reached from outside and publishers\[0\].token is not set")

    def test_under_load_every_message_arrives_once(self):
        app = self.app()
        process = self.publisher(app)
        rounds, size = 20, 25

        def publish(sender):
            for number in range(rounds):
                answer = self.post([{"body": f"{sender}-{number}-{n}"} for n in range(size)])
                self.assertEqual(answer.status, 200, answer.text)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(publish, range(8)))
        total = 8 * rounds * size
        process.until(consumed_messages=total)
        self.assertEqual(len(set(app.bodies())), total)
        self.assertEqual(len(app.requests), total)
        self.assertEqual(process.end(), 0)


class Repeats(Publishing):
    def test_a_key_sends_once(self):
        process = self.publisher(self.app())
        first, second = (self.post({"body": 1}, {"Idempotency-Key": "a"}) for _ in range(2))
        self.assertEqual(first.json, second.json)
        self.assertEqual(self.post({"body": 2}, {"Idempotency-Key": "a"}).status, 422, "another request")
        self.assertNotEqual(self.post({"body": 1}, {"Idempotency-Key": "b"}).json, first.json)
        self.assertEqual(self.post({"body": 1}, {"Idempotency-Key": "x" * 256}).status, 400)
        process.until(consumed_messages=2)

    def test_at_the_same_time_too(self):
        process = self.publisher(self.app(), ", linger: 200ms")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.post({"body": 1}, {"Idempotency-Key": "a"}).body, range(8)))
        self.assertEqual(len(set(answers)), 1)
        process.until(consumed_messages=1)

    def test_a_repetition_sends_what_was_not_taken_and_nothing_else(self):
        app = self.app()
        process = self.publisher(app, ", max_pending: 5, linger: 100ms")
        body = [{"body": n} for n in range(12)]
        statuses = [self.post(body, {"Idempotency-Key": "a"}).status for _ in range(4)]
        self.assertEqual(statuses, [207, 207, 200, 200])
        process.until(consumed_messages=12)
        self.assertEqual(sorted(app.bodies()), list(range(12)))

    def test_a_caller_that_gives_up_finds_out_later(self):
        process = self.publisher(self.app(), ", linger: 500ms")
        host, port = process.address("publisher").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: a\r\nContent-Length: 10\r\n\r\n{\"body\":1}")
            # It is taken once the head of the answer is due; the caller does not wait for it.
            until(lambda: self.post({"body": 2}).status == 200, "another message is sent meanwhile")
        self.assertEqual(self.post('{"body":1}', {"Idempotency-Key": "a"}).status, 200)
        process.until(consumed_messages=2)


class Events(Publishing):
    def event(self, **more):
        time = datetime.datetime(2026, 11, 24, 10, 0, tzinfo=datetime.timezone.utc)
        attributes = {"id": "7", "source": "/shop/ä b", "type": "order.created", "time": time, "subject": "100%", "tenant": "7"}
        return CloudEvent({**attributes, "datacontenttype": "application/json", **more}, {"n": 1, "名": "值"})

    def arrived(self, request):
        return from_http_event(HTTPMessage(dict(request.headers.items()), request.body))

    def test_an_event_goes_through_as_it_is(self):
        app = self.app()
        self.publisher(app, http=", format: cloudevents")
        event = self.event()
        for number, convert in enumerate([to_binary_event, to_structured_event], 1):
            message = convert(event)
            self.assertEqual(self.post(message.body, message.headers).status, 200)
            got = self.arrived(app.wait(number)[-1])
            own = {"dmsqueue": "orders", "dmsgroup": "billing"}
            self.assertEqual(got.get_attributes(), {**event.get_attributes(), **own})
            self.assertEqual(got.get_data(), event.get_data())

    def test_a_batch_is_a_list_of_messages(self):
        app = self.app()
        self.publisher(app, http=", format: cloudevents")
        events = [json.loads(to_structured_event(self.event(id=str(n))).body) for n in range(5)] + [{"id": "no event"}]
        answer = self.post(events, {"Content-Type": "application/cloudevents-batch+json"})
        states = [result["state"] for result in answer.json["messages"]]
        self.assertEqual((answer.status, states), (207, ["sent"] * 5 + ["refused"]))
        self.assertEqual(sorted(self.arrived(request).get_id() for request in app.wait(5)), list("01234"))

    def test_text_stays_text(self):
        app = self.app()
        self.publisher(app, http=", format: cloudevents")
        message = to_binary_event(CloudEvent({"id": "1", "source": "/s", "type": "t", "datacontenttype": "text/plain"}, 'so "it" is'))
        self.assertEqual(self.post(message.body, message.headers).status, 200)
        got = self.arrived(app.wait(1)[0])
        self.assertEqual((got.get_datacontenttype(), got.get_data()), ("text/plain", 'so "it" is'))

    def test_a_message_of_another_kind_is_an_event_too(self):
        app = self.app()
        process = self.deliver(app, ", format: cloudevents")
        process.send({"n": 1}, attributes={"tenant": 7, "Not-One": 1, "ce-type": "order created"})
        got = self.arrived(app.wait(1)[0])
        self.assertEqual((got.get_type(), got.get_source(), got.get_data()), ("order created", "/dms/local/orders", {"n": 1}))
        self.assertEqual((got.get_extension("tenant"), got.get_extension("dmsqueue")), ("7", "orders"))
        self.assertTrue(got.get_id())
