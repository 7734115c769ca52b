"""The unmodified otcextensions with openstacksdk (API V1.0, Keystone password) against the server: every call it has.

What the client has no call for (labels, delays, dead letters, tags, quotas) goes through its own authenticated session.
Calls that are broken in the client itself (`quotas`) are made in that way too.
"""

import sys
import time

import openstack
import otcextensions.sdk
from keystoneauth1 import exceptions as keystone
from openstack import exceptions

import harness
from harness import Checks

UNKNOWN = "9bf46390-38a2-462d-b392-4d5b2d519c55"


def connect(url, user=harness.USER, password=harness.PASSWORD, domain=harness.DOMAIN, **project):
    project = project or {"project_id": harness.PROJECT}
    auth = dict(auth_url=f"{url}/v3", username=user, password=password, user_domain_name=domain, **project)
    connection = openstack.connect(load_envvars=False, load_yaml_config=False, region_name="eu-de",
                                   auth_type="password", auth=auth)
    otcextensions.sdk.load(connection)
    return connection


def refused(checks, what, status, call, *arguments, **fields):
    try:
        answer = call(*arguments, **fields)
        answer = list(answer) if hasattr(answer, "__next__") else answer
    except exceptions.HttpException as error:
        checks.equal(f"{what}: status", error.status_code, status)
        return
    checks.true(f"{what}: refused", False, answer)


def login(checks, url):
    connection = connect(url)
    token = connection.auth_token
    # On PostgreSQL it is sealed, and longer, so that every server of a cluster accepts it.
    checks.true("a token", len(token) >= 64, token)
    checks.equal("the project", connection.current_project_id, harness.PROJECT)
    endpoint = connection.dms.get_endpoint()
    checks.true("the catalogue", endpoint.startswith(f"{url}/v1.0"), endpoint)
    by_name = connect(url, project_name=harness.PROJECT_NAME, project_domain_name=harness.DOMAIN)
    checks.equal("scope by name", by_name.current_project_id, harness.PROJECT)
    for what, wrong in [("password", {"password": "wrong"}), ("user", {"user": "nobody"}), ("domain", {"domain": "x"})]:
        try:
            connect(url, **wrong).authorize()
            checks.true(f"wrong {what} refused", False)
        except (keystone.Unauthorized, exceptions.SDKException) as error:
            checks.true(f"wrong {what} refused", "wrong" in str(error), error)


def queues(checks, dms):
    created = dms.create_queue(name="v1", description="by otcextensions", queue_mode="FIFO")
    checks.equal("created", (created.name, len(created.id)), ("v1", 36))
    checks.true("listed", "v1" in [queue.name for queue in dms.queues()])
    found = dms.get_queue(created.id)
    checks.equal("shown", (found.name, found.queue_mode, found.description), ("v1", "FIFO", "by otcextensions"))
    checks.equal("found by name", dms.find_queue("v1").id, created.id)
    checks.equal("found by id", dms.find_queue(created.id).name, "v1")
    refused(checks, "same name", 400, dms.create_queue, name="v1")
    refused(checks, "bad name", 400, dms.create_queue, name="a b")
    refused(checks, "unknown", 404, dms.get_queue, UNKNOWN)
    refused(checks, "no id", 400, dms.get_queue, "no-such-name")
    dms.delete_queue(created)
    checks.true("deleted", "v1" not in [queue.name for queue in dms.queues()])
    checks.equal("deleted twice is forgiven", dms.delete_queue(created), None)


def messages(checks, dms):
    queue = dms.create_queue(name="v1-messages", redrive_policy="enable", max_consume_count=1)
    group = dms.create_group(queue, "v1-group")
    checks.true("group", group.id.startswith("g-"), group.id)
    listed = list(dms.groups(queue, include_deadletter=True))
    checks.equal("listed", [(entry.id, entry.produced_deadletters) for entry in listed], [(group.id, 0)])
    checks.equal("found", dms.find_group(queue, "v1-group").id, group.id)
    sent = dms.send_message(queue, body={"foo": "bar"}, attributes={"a": 1})
    checks.true("sent", bool(sent.id) or sent.state == 0, sent)
    dms.send_messages(queue, messages=[{"body": "two"}, {"body": "three"}], return_id=True)
    # The client repeats the call until the answer is empty: only a server that honours leases lets it end.
    begun = time.monotonic()
    consumed = list(dms.consume_message(queue, group, max_msgs=10, time_wait=1, ack_wait=30))
    checks.true("the loop ends", time.monotonic() - begun < 10)
    checks.equal("bodies", [message.body for message in consumed], [{"foo": "bar"}, "two", "three"])
    checks.equal("attributes", consumed[0].attributes, {"a": 1})
    dms.ack_message(queue, group, [consumed[0].id])
    counts = next(iter(dms.groups(queue)))
    checks.equal("one settled", (counts.produced_messages, counts.consumed_messages), (3, 1))
    rest = list(dms.consume_message(queue, group, time_wait=1))
    checks.equal("the rest again", [message.body for message in rest], ["three"])
    checks.equal("the culprit is dead", dead_letters(dms, queue, group), ["two"])
    handlers = [message.id for message in rest]
    dms.ack_message(queue, group, handlers, status="fail")
    refused(checks, "acked twice", 400, dms.ack_message, queue, group, handlers)
    checks.equal("dead letters", dead_letters(dms, queue, group), ["three"])
    dms.delete_group(queue, group)
    checks.equal("no group", list(dms.groups(queue)), [])
    dms.delete_queue(queue)


def dead_letters(dms, queue, group):
    path = f"/queues/{queue.id}/groups/{group.id}/deadletters?time_wait=1&ack_wait=300"
    return [entry["message"]["body"] for entry in dms.get(path).json()]


def labels_delays_tags_quotas(checks, dms):
    queue = dms.create_queue(name="v1-session")
    group = dms.create_group(queue, "g")
    # The example of the reference for V1.0, with its spellings and its string for a boolean.
    body = {"messages": [
        {"body": "TEST11", "attributes": {"attribute1": "value1"}, "tags": ["tag1", "tag2"], "delayTime": 1000},
        {"body": {"foo": "test02"}, "tags": ["tag1"]},
        {"body": "other", "tags": ["tag3"]},
    ], "returnId": "true"}
    answer = dms.post(f"/queues/{queue.id}/messages", json=body)
    checks.equal("sent", (answer.status_code, [line["state"] for line in answer.json()["messages"]]), (201, [0, 0, 0]))
    checks.true("ids", all(line["id"] for line in answer.json()["messages"]))
    path = f"/queues/{queue.id}/groups/{group.id}/messages?tag=tag1&tag_type=or&time_wait=5"
    first = dms.get(path).json()
    checks.equal("by label", [entry["message"]["body"] for entry in first], [{"foo": "test02"}])
    checks.equal("labels beside", first[0]["tags"], ["tag1"])
    second = dms.get(path).json()
    checks.equal("when due", [entry["message"]["body"] for entry in second], ["TEST11"])
    tags = f"/queue/{queue.id}/tags"
    checks.equal("one tag", dms.post(tags, json={"tag": {"key": "env", "value": "test"}}).status_code, 204)
    checks.equal("shown", dms.get(tags).json(), {"tags": [{"key": "env", "value": "test"}]})
    search = {"action": "filter", "tags": [{"key": "env", "values": ["test"]}], "limit": "10", "offset": "0"}
    found = dms.post("/queue/resource_instances/action", json=search).json()
    checks.equal("found by tag", [entry["resource_id"] for entry in found["resources"]], [queue.id])
    checks.equal("untagged", dms.delete(f"{tags}/env").status_code, 204)
    checks.equal("untagged twice", dms.delete(f"{tags}/env").status_code, 404)
    quotas = dms.get("/quotas/dms").json()["quotas"]["resources"]
    checks.equal("quotas", [(entry["type"], entry["quota"]) for entry in quotas], [("queue", 30)])
    missing = dms.get("/topics")
    checks.equal("unknown URL", (missing.status_code, missing.json()["error_code"]), (404, "DMS.10240406"))
    dms.delete_queue(queue)


def expired_tokens(checks, url):
    """Tokens of this server are good for three seconds: the client gets a new one by itself, once."""
    connection = connect(url)
    old = connection.auth_token
    checks.true("good", connection.dms.get("/queues").status_code == 200)
    time.sleep(4)
    checks.true("renewed", connection.dms.get("/queues").status_code == 200)
    checks.true("another token", connection.auth_token != old)
    refused_with_old = connection.session.get(f"{url}/v1.0/{harness.PROJECT}/queues", headers={"X-Auth-Token": old},
                                              authenticated=False, raise_exc=False)
    answer = (refused_with_old.status_code, refused_with_old.json()["error_code"])
    checks.equal("the old one is expired", answer, (401, "DMS.10240102"))
    unknown = connection.session.get(f"{url}/v1.0/{harness.PROJECT}/queues", headers={"X-Auth-Token": "stolen"},
                                     authenticated=False, raise_exc=False)
    checks.equal("an unknown one", (unknown.status_code, unknown.json()["error_code"]), (401, "DMS.10240101"))
    none = connection.session.get(f"{url}/v1.0/{harness.PROJECT}/queues", authenticated=False, raise_exc=False)
    checks.equal("none", (none.status_code, none.json()["error_code"]), (401, "DMS.10240103"))
    other = connection.session.get(f"{url}/v1.0/{harness.OTHER_PROJECT}/queues", raise_exc=False)
    checks.equal("another project", (other.status_code, other.json()["error_code"]), (401, "DMS.10240104"))


def main():
    checks = Checks()
    with harness.server() as url:
        checks.section(login, url)
        dms = connect(url).dms
        for scene in (queues, messages, labels_delays_tags_quotas):
            checks.section(scene, dms)
    with harness.server(token_lifetime="3s") as url:
        checks.section(expired_tokens, url)
    checks.finish()


if __name__ == "__main__":
    sys.exit(main())
