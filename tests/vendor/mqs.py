"""The REST API of ROMA Connect MQS, signed by the unmodified signer of huaweicloudsdkcore: the documents of the developer guide."""

import base64
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

import harness
from harness import Checks

CONFIG = f"""
server:
  listen: 127.0.0.1:%(port)d
  admin: 127.0.0.1:%(admin)d
  %(store)s
  mqs: {{listen: 127.0.0.1:%(mqs)d}}
  auth:
    access_keys:
      - {{access_key: {harness.ACCESS_KEY}, secret_key: {harness.SECRET_KEY}}}
"""


class Api:
    """SASL user and password sign the request; nothing else identifies the caller."""

    def __init__(self, url, user=harness.ACCESS_KEY, password=harness.SECRET_KEY):
        self.url = url
        self.signer = Signer(BasicCredentials(user, password, "unused"))

    def call(self, method, path, body=None, query=()):
        text = "" if body is None else json.dumps(body)
        host = urllib.parse.urlsplit(self.url).netloc
        request = SdkRequest(method=method, schema="http", host=host, resource_path=path, query_params=list(query),
                             header_params={"Content-Type": "application/json"}, body=text)
        signed = self.signer.sign(request)
        sent = urllib.request.Request(self.url + signed.uri, data=signed.body or None, headers=signed.header_params,
                                      method=method)
        try:
            with urllib.request.urlopen(sent, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def produce(self, topic, *messages):
        return self.call("POST", f"/v1/topic/{topic}/messages", {"messages": list(messages)})

    def consume(self, topic, group, **query):
        return self.call("GET", f"/v1/topic/{topic}/group/{group}/messages", query=query.items())

    def confirm(self, topic, group, *messages):
        return self.call("POST", f"/v1/topic/{topic}/group/{group}/messages", {"messages": list(messages)})


def documents(checks, url):
    api = Api(url)
    status, produced = api.produce("T", {"content": "hello roma-1", "id": "1"}, {"content": {"n": [1, "队"]}, "id": "2"})
    checks.equal("produce", (status, produced), (200, [{"state": "success", "id": "1"}, {"state": "success", "id": "2"}]))
    status, consumed = api.consume("T", "G", ack_wait=15, time_wait=3, max_msgs=10)
    checks.equal("consume", (status, len(consumed)), (200, 2))
    bodies = [json.loads(base64.b64decode(message["message"]["content"])) for message in consumed]
    checks.equal("contents", bodies, ["hello roma-1", {"n": [1, "队"]}])
    lines = [{"handler": message["handler"], "status": "success"} for message in consumed]
    checks.equal("acknowledge", api.confirm("T", "G", *lines), (200, {"success": 2, "fail": 0}))
    status, error = api.confirm("T", "G", *lines)
    checks.equal("acknowledge twice", (status, sorted(error)), (400, ["error_code", "error_msg", "request_id"]))
    checks.equal("nothing is left", api.consume("T", "G", time_wait=1), (200, []))


def strangers(checks, url):
    for user, password in [(harness.ACCESS_KEY, "wrong"), ("UNKNOWN", harness.SECRET_KEY)]:
        status, error = Api(url, user, password).produce("T", {"content": 1, "id": "1"})
        checks.equal("a stranger", (status, error["error_code"]), (401, "APIGW.0301"))


@contextlib.contextmanager
def server():
    """The URL of the MQS listener: the one that was named, or that of a new process."""
    target = sys.argv[1] if len(sys.argv) > 1 else sys.exit(harness.__doc__)
    if target.startswith("http"):
        yield target.rstrip("/")
        return
    with tempfile.TemporaryDirectory() as directory, harness.store_in(pathlib.Path(directory, "data")) as store:
        ports = {"port": harness.free_port(), "admin": harness.free_port(), "mqs": harness.free_port()}
        config = pathlib.Path(directory, "config.yaml")
        config.write_text(CONFIG % {**ports, "store": store})
        process = subprocess.Popen([target, "serve", "-c", str(config)])
        try:
            harness.wait_for(ports["mqs"], process)
            harness.wait_until_ready(ports["admin"], process)
            yield f"http://127.0.0.1:{ports['mqs']}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def main():
    checks = Checks()
    with server() as url:
        checks.section(documents, url)
        checks.section(strangers, url)
    checks.finish()


if __name__ == "__main__":
    main()
