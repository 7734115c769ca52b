"""The unmodified huaweicloudsdkdms (API V2, AK/SK) against the server: every call it has."""

import os
import sys
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkdms.v2 import DmsClient, model

import harness
from harness import Checks

UNKNOWN = "9bf46390-38a2-462d-b392-4d5b2d519c55"


class Api:
    """The client with its request objects made short."""

    def __init__(self, url, access_key=harness.ACCESS_KEY, secret_key=harness.SECRET_KEY, project=harness.PROJECT,
                 security_token=None):
        config = HttpConfig.get_default_config()
        config.timeout = (5, 90)
        credentials = BasicCredentials(access_key, secret_key, project)
        if security_token:
            credentials.with_security_token(security_token)
        self.client = (DmsClient.new_builder().with_http_config(config).with_credentials(credentials)
                       .with_endpoint(url).build())

    def create_queue(self, name, **fields):
        body = model.CreateQueueReq(name=name, **fields)
        return self.client.create_queue(model.CreateQueueRequest(body=body))

    def queues(self, **query):
        return self.client.list_queues(model.ListQueuesRequest(**query))

    def queue(self, queue, **query):
        return self.client.show_queue(model.ShowQueueRequest(queue_id=queue, **query))

    def delete_queue(self, queue):
        return self.client.delete_queue(model.DeleteQueueRequest(queue_id=queue))

    def create_groups(self, queue, *names):
        body = model.CreateConsumerGroupReq(groups=[model.GroupEntity(name=name) for name in names])
        answer = self.client.create_consumer_group(model.CreateConsumerGroupRequest(queue_id=queue, body=body))
        return answer.groups

    def groups(self, queue, **query):
        return self.client.list_consumer_groups(model.ListConsumerGroupsRequest(queue_id=queue, **query))

    def delete_group(self, queue, group):
        request = model.DeleteSpecifiedConsumerGroupRequest(queue_id=queue, group_id=group)
        return self.client.delete_specified_consumer_group(request)

    def send(self, queue, *messages, **fields):
        entities = [model.SendMessageEntity(**message) for message in messages]
        body = model.SendMessagesReq(messages=entities, **fields)
        return self.client.send_messages(model.SendMessagesRequest(queue_id=queue, body=body)).messages

    def consume(self, queue, group, **query):
        query.setdefault("time_wait", 1)
        request = model.ConsumeMessagesRequest(queue_id=queue, consumer_group_id=group, **query)
        return self.client.consume_messages(request).body or []

    def ack(self, queue, group, *pairs):
        lines = [model.ConfirmMessageEntity(handler=handler, status=status) for handler, status in pairs]
        body = model.ConfirmConsumptionMessagesReq(message=lines)
        request = model.ConfirmConsumptionMessagesRequest(queue_id=queue, consumer_group_id=group, body=body)
        answer = self.client.confirm_consumption_messages(request)
        return answer.success, answer.fail

    def dead_letters(self, queue, group, **query):
        query.setdefault("time_wait", 1)
        request = model.ConsumeDeadlettersMessageRequest(queue_id=queue, consumer_group_id=group, **query)
        return self.client.consume_deadletters_message(request).body or []

    def ack_dead_letters(self, queue, group, *pairs):
        lines = [model.ConfirmMessageEntity(handler=handler, status=status) for handler, status in pairs]
        body = model.ConfirmDeadLettersMessagesReq(message=lines)
        request = model.ConfirmDeadLettersMessagesRequest(queue_id=queue, consumer_group_id=group, body=body)
        answer = self.client.confirm_dead_letters_messages(request)
        return answer.success, answer.fail

    def tag(self, queue, action, *pairs):
        tags = [model.BatchCreateOrDeleteTagReqTags(key=key, value=value) for key, value in pairs]
        body = model.BatchCreateOrDeleteTagReq(action=action, tags=tags)
        request = model.BatchCreateOrDeleteQueueTagRequest(queue_id=queue, body=body)
        return self.client.batch_create_or_delete_queue_tag(request)

    def tags(self, queue):
        answer = self.client.show_queue_tags(model.ShowQueueTagsRequest(queue_id=queue))
        return sorted((tag.key, tag.value) for tag in answer.tags)

    def project_tags(self):
        return self.client.show_queue_project_tags(model.ShowQueueProjectTagsRequest()).tags

    def quotas(self):
        return self.client.show_quotas(model.ShowQuotasRequest()).quotas.resources


def refused(checks, what, status, code, call, *arguments, **fields):
    """Checks that a call is refused with this status and code."""
    try:
        answer = call(*arguments, **fields)
    except ServiceResponseException as error:
        checks.equal(f"{what}: status", error.status_code, status)
        checks.equal(f"{what}: code", error.error_code, code)
        return error
    checks.true(f"{what}: refused", False, answer)
    return None


def bodies(messages):
    return [message.message.body for message in messages]


def with_status(messages, status):
    return [(message.handler, status) for message in messages]


def queue_life(checks, api):
    created = api.create_queue("life", description="a queue", redrive_policy="enable", max_consume_count=3)
    checks.equal("name", created.name, "life")
    checks.equal("no topic", created.kafka_topic, None)
    shown = api.queue(created.id, include_deadletter=True)
    checks.equal("shown", (shown.id, shown.name, shown.description), (created.id, "life", "a queue"))
    checks.equal("mode", shown.queue_mode, "NORMAL")
    checks.equal("dead letters", (shown.redrive_policy, shown.max_consume_count), ("enable", 3))
    checks.equal("retention", shown.reservation, 4320)
    checks.equal("size", shown.max_msg_size_byte, 524288)
    checks.equal("empty", (shown.produced_messages, shown.group_count), (0, 0))
    checks.true("created", isinstance(shown.created, int) and abs(shown.created / 1000 - time.time()) < 60, shown.created)
    checks.equal("created twice", shown.eff_date, shown.created)
    checks.equal("dead letters on request", api.queue(created.id).redrive_policy, None)
    listed = api.queues(include_deadletter=True)
    checks.equal("total", listed.total, len(listed.queues))
    checks.true("listed", "life" in [queue.name for queue in listed.queues])
    refused(checks, "same name", 400, "DMS.10240017", api.create_queue, "life")
    checks.equal("deleted", api.delete_queue(created.id).status_code, 204)
    refused(checks, "deleted", 404, "DMS.10240401", api.queue, created.id)
    refused(checks, "deleted twice", 404, "DMS.10240401", api.delete_queue, created.id)


def queue_limits(checks, api):
    for name, code in [("", "DMS.10240011"), ("x" * 65, "DMS.10240011"), ("a b", "DMS.10240007")]:
        refused(checks, f"name {name!r}", 400, code, api.create_queue, name)
    refused(checks, "long description", 400, "DMS.10240013", api.create_queue, "l", description="x" * 161)
    refused(checks, "angle bracket", 400, "DMS.10240010", api.create_queue, "l", description="a<b")
    for count in (0, 101):
        refused(checks, f"count {count}", 400, "DMS.10240022", api.create_queue, "l", redrive_policy="enable",
                max_consume_count=count)
    refused(checks, "retention", 400, "DMS.10240028", api.create_queue, "l", retention_hours=10)
    refused(checks, "long retention", 400, "DMS.10240027", api.create_queue, "l", queue_mode="KAFKA_HA",
            retention_hours=73)
    refused(checks, "no such id", 404, "DMS.10240401", api.queue, UNKNOWN)
    refused(checks, "no id", 400, "DMS.10240015", api.queue, "name")


def group_life(checks, api):
    queue = api.create_queue("grouped").id
    groups = api.create_groups(queue, "one", "two")
    checks.equal("names", [group.name for group in groups], ["one", "two"])
    checks.true("ids", all(group.id.startswith("g-") for group in groups))
    listed = api.groups(queue, include_deadletter=True)
    checks.equal("queue", (listed.queue_id, listed.queue_name), (queue, "grouped"))
    checks.equal("policy", listed.redrive_policy, "disable")
    checks.equal("listed", [group.id for group in listed.groups], [group.id for group in groups])
    page = api.groups(queue, page_size=1, current_page=2)
    checks.equal("second page", [group.name for group in page.groups], ["two"])
    refused(checks, "same name", 400, "DMS.10240018", api.create_groups, queue, "one")
    refused(checks, "four", 400, "DMS.10240019", api.create_groups, queue, "a", "b", "c", "d")
    refused(checks, "fourth", 400, "DMS.10240019", api.create_groups, queue, "three", "four")
    refused(checks, "long name", 400, "DMS.10240012", api.create_groups, queue, "x" * 33)
    refused(checks, "bad name", 400, "DMS.10240007", api.create_groups, queue, "a.b")
    checks.equal("deleted", api.delete_group(queue, groups[0].id).status_code, 204)
    refused(checks, "deleted twice", 404, "DMS.10240405", api.delete_group, queue, groups[0].id)
    refused(checks, "no id", 400, "DMS.10240016", api.delete_group, queue, "one")
    checks.equal("left", [group.name for group in api.groups(queue).groups], ["two"])


def send_and_consume(checks, api):
    queue = api.create_queue("mixed").id
    group = api.create_groups(queue, "g")[0].id
    shapes = ["text", {"object": [1, 2.5, None]}, ["list"], 7, True, "队列 😀", {"nested": {"deep": {}}}]
    sent = api.send(queue, *[{"body": shape} for shape in shapes])
    checks.equal("all sent", [line.state for line in sent], [0] * len(shapes))
    checks.true("no ids", all(line.id is None for line in sent))
    consumed = api.consume(queue, group)
    checks.equal("bodies", bodies(consumed), shapes)
    checks.equal("acked", api.ack(queue, group, *with_status(consumed, "success")), (len(shapes), 0))
    sent = api.send(queue, {"body": "x", "attributes": {"a": 1, "b": "two", "c": False}}, return_id=True)
    checks.true("an id", bool(sent[0].id))
    consumed = api.consume(queue, group)
    checks.equal("attributes", consumed[0].message.attributes, {"a": 1, "b": "two", "c": False})
    api.ack(queue, group, *with_status(consumed, "success"))
    counts = api.groups(queue).groups[0]
    checks.equal("counts", (counts.produced_messages, counts.consumed_messages, counts.available_messages), (8, 8, 0))
    begun = time.monotonic()
    checks.equal("empty", api.consume(queue, group), [])
    checks.true("waited", 0.9 <= time.monotonic() - begun < 3, time.monotonic() - begun)
    ten = api.send(queue, *[{"body": number} for number in range(10)])
    checks.equal("ten", len(ten), 10)
    three = api.consume(queue, group, max_msgs=3)
    checks.equal("three", bodies(three), [0, 1, 2])
    checks.equal("the others", bodies(api.consume(queue, group)), list(range(3, 10)))
    refused(checks, "eleven", 400, "DMS.10540010", api.send, queue, *[{"body": number} for number in range(11)])
    refused(checks, "too large", 400, "DMS.10540011", api.send, queue, {"body": "x" * 530_000})
    refused(checks, "too large together", 400, "DMS.10540011", api.send, queue, *[{"body": "x" * 300_000}] * 2)
    checks.equal("large", api.send(queue, {"body": "x" * 500_000})[0].state, 0)
    refused(checks, "unknown queue", 404, "DMS.10240401", api.send, UNKNOWN, {"body": 1})


def consume_limits(checks, api):
    queue = api.create_queue("limits").id
    group = api.create_groups(queue, "g")[0].id
    for query, status, code in [
        ({"max_msgs": 0}, 400, "DMS.10240014"),
        ({"max_msgs": 11}, 400, "DMS.10240014"),
        ({"time_wait": 0}, 400, "DMS.10240021"),
        ({"time_wait": 61}, 400, "DMS.10240021"),
        ({"ack_wait": 14}, 400, "DMS.10542206"),
        ({"ack_wait": 301}, 400, "DMS.10542206"),
        ({"tag": ["a", "b", "c", "d"]}, 400, "DMS.10540014"),
        ({"tag": ["a"], "tag_type": "nor"}, 500, "DMS.10550035"),
    ]:
        refused(checks, f"{query}", status, code, api.consume, queue, group, **query)
    refused(checks, "unknown group", 404, "DMS.10240405", api.consume, queue, f"g-{UNKNOWN}")
    refused(checks, "group name", 400, "DMS.10240016", api.consume, queue, "g")


def ack_rules(checks, api):
    queue = api.create_queue("acks").id
    group, other = (group.id for group in api.create_groups(queue, "g", "other"))
    api.send(queue, *[{"body": number} for number in range(5)])
    batch = api.consume(queue, group)
    handlers = [message.handler for message in batch]
    statuses = ["success", "success", "fail", "success", "success"]
    checks.equal("stops at a failure", api.ack(queue, group, *zip(handlers, statuses)), (2, 3))
    again = api.consume(queue, group)
    checks.equal("redelivered in order", bodies(again), [2, 3, 4])
    reverse = with_status(reversed(again), "success")
    checks.equal("any order of the list", api.ack(queue, group, *reverse), (3, 0))
    refused(checks, "repeated", 400, "DMS.10542209", api.ack, queue, group, *with_status(again, "success"))
    refused(checks, "forged", 400, "DMS.10542209", api.ack, queue, group, ("forged", "success"))
    mine = api.consume(queue, other, max_msgs=1)
    refused(checks, "another group's", 400, "DMS.10540004", api.ack, queue, group, *with_status(mine, "success"))
    error = refused(checks, "bad status", 400, "DMS.10540003", api.ack, queue, other, *with_status(mine, "done"))
    checks.true("says which", error is not None and "'done'" in error.error_msg, error)
    refused(checks, "nothing", 400, "DMS.10540010", api.ack, queue, other)
    checks.equal("still there", api.ack(queue, other, *with_status(mine, "success")), (1, 0))


def lease_lapses(checks, api):
    queue = api.create_queue("leases").id
    group = api.create_groups(queue, "g")[0].id
    api.send(queue, {"body": "late"})
    begun = time.monotonic()
    first = api.consume(queue, group, ack_wait=15)
    checks.equal("leased", api.consume(queue, group), [])
    second = api.consume(queue, group, time_wait=30)
    checks.true("after 15 s", 14.5 <= time.monotonic() - begun <= 17, time.monotonic() - begun)
    checks.equal("redelivered", bodies(second), ["late"])
    refused(checks, "too late", 400, "DMS.10542209", api.ack, queue, group, *with_status(first, "success"))
    checks.equal("in time", api.ack(queue, group, *with_status(second, "success")), (1, 0))


def dead_letters(checks, api):
    queue = api.create_queue("poison", redrive_policy="enable", max_consume_count=2).id
    group, other = (group.id for group in api.create_groups(queue, "g", "other"))
    api.send(queue, {"body": "poison", "attributes": {"a": "b"}, "tags": ["t"]})
    for _ in range(2):
        checks.equal("failed", api.ack(queue, group, *with_status(api.consume(queue, group), "fail")), (0, 1))
    checks.equal("not a message any more", api.consume(queue, group), [])
    counts = api.groups(queue, include_deadletter=True).groups[0]
    checks.equal("counted", (counts.produced_deadletters, counts.available_deadletters), (1, 1))
    checks.equal("not for the other group", api.dead_letters(queue, other), [])
    checks.equal("still a message there", bodies(api.consume(queue, other)), ["poison"])
    dead = api.dead_letters(queue, group, max_msgs=10, ack_wait=20)
    checks.equal("dead", (dead[0].message.body, dead[0].message.attributes), ("poison", {"a": "b"}))
    checks.equal("failed again", api.ack_dead_letters(queue, group, *with_status(dead, "fail")), (0, 1))
    dead = api.dead_letters(queue, group)
    checks.equal("no third level", api.ack_dead_letters(queue, group, *with_status(dead, "success")), (1, 0))
    counts = api.groups(queue, include_deadletter=True).groups[0]
    checks.equal("settled", (counts.produced_deadletters, counts.available_deadletters), (1, 0))
    refused(checks, "repeated", 400, "DMS.10542209", api.ack_dead_letters, queue, group,
            *with_status(dead, "success"))


def fifo(checks, api):
    queue = api.create_queue("fifo", queue_mode="FIFO").id
    group = api.create_groups(queue, "g")[0].id
    for start in range(0, 30, 10):
        api.send(queue, *[{"body": number} for number in range(start, start + 10)])
    first = api.consume(queue, group, max_msgs=4)
    checks.equal("blocked while a batch is out", api.consume(queue, group), [])
    pairs = [(message.handler, status) for message, status in zip(first, ["success", "fail", "success", "success"])]
    checks.equal("one settled", api.ack(queue, group, *pairs), (1, 3))
    seen = bodies(first)[:1]
    while batch := api.consume(queue, group, max_msgs=7):
        seen += bodies(batch)
        api.ack(queue, group, *with_status(batch, "success"))
    checks.equal("strict order", seen, list(range(30)))


def labels(checks, api):
    queue = api.create_queue("labels").id
    either, both, all_of_them = (group.id for group in api.create_groups(queue, "or", "and", "none"))
    for tags in (["a"], ["b"], ["a", "b"], ["c"], []):
        api.send(queue, {"body": "".join(tags), **({"tags": tags} if tags else {})})
    consumed = api.consume(queue, either, tag=["a", "b"], tag_type="or")
    checks.equal("or", bodies(consumed), ["a", "b", "ab"])
    checks.equal("tags", consumed[2].message.tags, ["a", "b"])
    checks.equal("and", bodies(api.consume(queue, both, tag=["b", "a"], tag_type="and")), ["ab"])
    checks.equal("all", bodies(api.consume(queue, all_of_them)), ["a", "b", "ab", "c", ""])
    refused(checks, "another rule", 400, "DMS.10542204", api.consume, queue, either, tag=["a"])
    refused(checks, "bad label", 400, "DMS.10240004", api.send, queue, {"body": 1, "tags": ["a b"]})
    refused(checks, "four labels", 400, "DMS.10240004", api.send, queue, {"body": 1, "tags": list("abcd")})


def delays(checks, api):
    queue = api.create_queue("delays").id
    group = api.create_groups(queue, "g")[0].id
    begun = time.monotonic()
    api.send(queue, {"body": "later", "delay_time": 2000}, {"body": "now"})
    checks.equal("now", bodies(api.consume(queue, group)), ["now"])
    later = api.consume(queue, group, time_wait=10)
    checks.equal("later", bodies(later), ["later"])
    checks.true("after 2 s", 1.9 <= time.monotonic() - begun <= 4, time.monotonic() - begun)
    refused(checks, "too long", 400, "DMS.10540010", api.send, queue, {"body": 1, "delay_time": 604_800_001})


def kafka(checks, api):
    created = api.create_queue("kafka", queue_mode="KAFKA_HA", retention_hours=36)
    checks.equal("topic", created.kafka_topic, f"k-{harness.PROJECT}-{created.id}")
    checks.equal("retention", api.queue(created.id).reservation, 36 * 60)
    group = api.create_groups(created.id, "g")[0].id
    api.send(created.id, {"body": "k"})
    checks.equal("consumed", bodies(api.consume(created.id, group)), ["k"])
    try:
        api.send(created.id, {"body": 1, "delay_time": 1000})
        checks.true("delay refused", False)
    except ServiceResponseException as error:
        checks.equal("delay refused", error.status_code, 400)


def tags(checks, api):
    queue = api.create_queue("tagged").id
    checks.equal("created", api.tag(queue, "create", ("k1", "v1"), ("k2", "")).status_code, 204)
    checks.equal("shown", api.tags(queue), [("k1", "v1"), ("k2", "")])
    api.tag(queue, "create", ("k1", "other"))
    checks.equal("overwritten", api.tags(queue), [("k1", "other"), ("k2", "")])
    project = {tag.key: tag.values for tag in api.project_tags()}
    checks.equal("of the project", project.get("k1"), ["other"])
    api.tag(queue, "delete", ("k1", None), ("k2", "not this"), ("missing", None))
    checks.equal("deleted", api.tags(queue), [("k2", "")])
    refused(checks, "action", 400, "DMS.10240040", api.tag, queue, "replace", ("k", "v"))
    refused(checks, "long key", 400, "DMS.10240035", api.tag, queue, "create", ("k" * 37, "v"))
    refused(checks, "bad key", 400, "DMS.10240036", api.tag, queue, "create", ("a=b", "v"))
    refused(checks, "long value", 400, "DMS.10240038", api.tag, queue, "create", ("k", "v" * 44))
    refused(checks, "key twice", 400, "DMS.10240045", api.tag, queue, "create", ("k", "1"), ("k", "2"))
    refused(checks, "too many", 400, "DMS.10240044", api.tag, queue, "create", *[(f"k{n}", "") for n in range(21)])


def quotas(checks, api):
    resources = {resource.type: resource for resource in api.quotas()}
    checks.equal("queues", resources["queue"].quota, 30)
    checks.equal("in use", resources["queue"].used,
                 len([queue for queue in api.queues().queues if not queue.queue_mode.startswith("KAFKA")]))
    checks.equal("kafka", (resources["kafkaQueue"].quota, resources["kafkaQueue"].used), (30, 1))
    checks.equal("groups and tags", (resources["group"].quota, resources["tags"].quota), (3, 10))


def signatures(checks, url, api):
    temporary = Api(url, harness.TEMPORARY_KEY, harness.TEMPORARY_SECRET, security_token=harness.SECURITY_TOKEN)
    checks.true("temporary credentials", temporary.queues().total >= 0)
    refused(checks, "without token", 401, "APIGW.0301",
            Api(url, harness.TEMPORARY_KEY, harness.TEMPORARY_SECRET).queues)
    refused(checks, "another project", 401, "DMS.10240104", Api(url, project=harness.OTHER_PROJECT).queues)
    other = Api(url, harness.OTHER_KEY, harness.OTHER_SECRET, harness.OTHER_PROJECT)
    checks.equal("its own queues", other.queues().total, 0)
    refused(checks, "unknown key", 401, "APIGW.0301", Api(url, "NOBODY").queues)
    wrong = Api(url, harness.OTHER_KEY, "wrong", harness.OTHER_PROJECT)
    for _ in range(5):
        refused(checks, "wrong secret", 401, "APIGW.0301", wrong.queues)
    # Unlike the gateway's, the lock is for wrong signatures alone: the owner of the key is not locked out.
    error = refused(checks, "locked", 401, "APIGW.0301", wrong.queues)
    checks.true("says so", error is not None and "reach the limit" in error.error_msg, error)
    checks.true("its owner is not", other.queues().total >= 0)
    checks.true("others are not", api.queues().total >= 0)


def project_by_region(checks, url):
    """Without a project id the SDK asks the identity service which project is named as its region."""
    os.environ["HUAWEICLOUD_SDK_IAM_ENDPOINT"] = url
    credentials = BasicCredentials(harness.ACCESS_KEY, harness.SECRET_KEY)
    client = (DmsClient.new_builder().with_credentials(credentials)
              .with_region(Region(harness.PROJECT_NAME, url)).build())
    checks.true("finds its project", client.list_queues(model.ListQueuesRequest()).total > 0)


def main():
    checks = Checks()
    with harness.server() as url:
        api = Api(url)
        for scene in (queue_life, queue_limits, group_life, send_and_consume, consume_limits, ack_rules, lease_lapses,
                      dead_letters, fifo, labels, delays, kafka, tags, quotas):
            checks.section(scene, api)
        checks.section(project_by_region, url)
        checks.section(signatures, url, api)
    checks.finish()


if __name__ == "__main__":
    sys.exit(main())
