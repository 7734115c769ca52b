#!/usr/bin/env python3
"""A redrive of many dead letters that is killed, against a durable server.

    cargo build --release
    tests/load/redrive_killed.py --messages 100000 --kills 2

Checked are: none is left, every message is delivered at least once, and no more are there twice than the report of the last run says.
"""

import argparse
import json
import os
import time

from harness import Child, Consumer, Server, main, verdict


def left(server):
    return json.loads(server.run("-o", "json", "dlq", "list", "orders", "billing"))[0]["available_dead_letters"]


def run(args, directory):
    path = os.path.join(directory, "orders.jsonl")
    with open(path, "w") as out:
        out.writelines(f'{{"body":{number}}}\n' for number in range(args.messages))
    server = Server(os.path.abspath(args.program), directory)
    server.run("queue", "create", "orders", "--max-consume-count", "1", "--group", "billing")
    server.run("send", "orders", "--file", path)
    consumer = Consumer(server, "orders", "billing")
    consumer.bury()
    print(f"{left(server)} dead letters", flush=True)

    journal = os.path.join(directory, "redrive.journal")
    command = ["-o", "json", "dlq", "redrive", "orders", "billing", "--journal", journal]
    started = time.monotonic()
    for round in range(args.kills):
        child = Child(server, directory, f"redrive-{round}", *command)
        target = args.messages * (args.kills - round) // (args.kills + 1)
        killed = child.kill_when(lambda: copied(journal) >= args.messages - target)
        print(f"run {round + 1}: {'killed' if killed else 'ended'} with {copied(journal)} copies sent", flush=True)
    child = Child(server, directory, "redrive-last", *command)
    code = child.wait()
    took = time.monotonic() - started
    report = json.loads(child.stdout() or "{}")
    print(f"the last run's report: {json.dumps(report)}")
    remaining = left(server)

    copies = {}
    consumer.drain(lambda message: copies.update({message["body"]: copies.get(message["body"], 0) + 1}))
    server.stop()
    doubled = sum(times - 1 for times in copies.values())
    checks = {
        "exit code 0": code == 0,
        f"{remaining} dead letters are left": remaining == 0,
        "every message was delivered": set(copies) == set(range(args.messages)),
        f"{doubled} are there twice, {report.get('doubled')} were reported": doubled <= report.get("doubled", -1),
    }
    print(f"redriven in {took:.0f} s: {args.messages / took:.0f} messages/s")
    return verdict(checks)


def copied(journal):
    """How many copies the journal says are stored."""
    try:
        with open(journal) as notes:
            return json.loads(notes.read() or "{}").get("copied", 0)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=10_000)
    options.add_argument("--kills", type=int, default=2)
    main(options, run)
