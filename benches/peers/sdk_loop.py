"""The vendor's Python SDK in a loop, as its own examples have it: consume a batch, acknowledge it, again.

Prints messages, seconds and CPU seconds of this process as a line of JSON.
"""

import json
import sys
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkdms.v2 import DmsClient, model


def main(url, queue_name, group_name, seconds):
    credentials = BasicCredentials("EXAMPLEKEY", "secret", "local")
    config = HttpConfig.get_default_config()
    client = DmsClient.new_builder().with_http_config(config).with_credentials(credentials).with_endpoint(url).build()
    queues = client.list_queues(model.ListQueuesRequest()).queues
    queue = next(queue.id for queue in queues if queue.name == queue_name)
    groups = client.list_consumer_groups(model.ListConsumerGroupsRequest(queue_id=queue)).groups
    group = next(group.id for group in groups if group.name == group_name)
    started, cpu, acked = time.monotonic(), time.process_time(), 0
    while time.monotonic() - started < seconds:
        request = model.ConsumeMessagesRequest(queue_id=queue, consumer_group_id=group, max_msgs=10, time_wait=1)
        messages = client.consume_messages(request).body or []
        if not messages:
            break
        lines = [model.ConfirmMessageEntity(handler=message.handler, status="success")
                 for message in messages]
        body = model.ConfirmConsumptionMessagesReq(message=lines)
        request = model.ConfirmConsumptionMessagesRequest(queue_id=queue, consumer_group_id=group, body=body)
        acked += client.confirm_consumption_messages(request).success
    print(json.dumps({"acked": acked, "seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
