#!/usr/bin/env python3
"""A file of mixed sizes through `dms-worker send --file` and a durable server.

    cargo build --release
    tests/load/send_resume.py --lines 1000000                 # every valid line comes out exactly once
    tests/load/send_resume.py --lines 1000000 --kills 3       # killed with SIGKILL and resumed: none is missing

Bodies have 10 bytes to 400 KB, most of them small; one line in 500 is invalid in one of several ways. Checked are: every valid line is
consumed (once; after a kill at most as often as the program said), every invalid one is named with its number and a reason, and
the program's memory. Needs about 3 KB of disk per line, twice; everything is removed at the end.
"""

import argparse
import json
import os
import random
import time

from harness import Child, Consumer, Server, main, verdict

INVALID = [
    "not json\n",
    '{"attributes":{"a":1}}\n',
    '{"body":1,"tags":["no blanks"]}\n',
    '{"body":1,"delay_time":604800001}\n',
    '{"body":1,"tags":["a","b","c","d"]}\n',
    '{"body":1\n',
]


def size(dice):
    """Bytes of a body: nine in ten below 1 KB, one in a thousand up to 400 KB."""
    roll = dice.random()
    if roll < 0.9:
        return dice.randint(10, 1_000)
    if roll < 0.999:
        return dice.randint(1_000, 10_000)
    return dice.randint(10_000, 400_000)


def generate(path, lines, dice):
    """Writes the file; gives the numbers of its invalid lines."""
    alphabet = ["a", "b", " ", "\n", '"', "\\", "é", "队"]
    texts = [json.dumps("".join(dice.choices(alphabet, k=1_000)), ensure_ascii=False)[1:-1] for _ in range(50)]
    pool = []
    for _ in range(5_000):
        # Whole texts, so that no escape is cut, and plain letters up to the size.
        wanted = size(dice)
        text = dice.choice(texts) * (wanted // 2_000)
        pool.append(text + "x" * max(0, wanted - len(text.encode())))
    invalid = set()
    with open(path, "w") as out:
        for number in range(1, lines + 1):
            if number % 50_000 == 0:
                invalid.add(number)
                out.write('{"body":"' + "x" * 600_000 + '"}\n')
            elif number % 500 == 0:
                invalid.add(number)
                out.write(INVALID[number // 500 % len(INVALID)])
            else:
                body = f'{{"n":{number},"text":"{dice.choice(pool)}"}}'
                out.write(f'{{"body":{body},"attributes":{{"line":{number}}},"tags":["load"]}}\n')
    return invalid


def run(args, directory):
    path = os.path.join(directory, "orders.jsonl")
    invalid = generate(path, args.lines, random.Random(args.seed))
    print(f"{args.lines} lines, {len(invalid)} of them invalid, {os.path.getsize(path) / 1e9:.2f} GB", flush=True)
    server = Server(os.path.abspath(args.program), directory)
    server.run("queue", "create", "orders", "--group", "check")

    reported, peak = {}, 0
    started = time.monotonic()
    command = ["send", "orders", "--file", path]
    for round in range(args.kills + 1):
        child = Child(server, directory, f"send-{round}", *command)
        if round < args.kills:
            target = args.lines * (round + 1) // (args.kills + 1)
            child.kill_when(lambda: journal_line(path) >= target)
        else:
            code = child.wait()
        peak = max(peak, child.peak_kib)
        for line in child.stderr():
            if line.startswith("line "):
                number, reason = line[5:].split(":", 1)
                reported[int(number)] = reason
        print(f"run {round + 1}: at line {journal_line(path) or args.lines}: {child.stderr()[-1][:150]}", flush=True)
        command = ["send", "orders", "--file", path, "--resume"]
    took = time.monotonic() - started
    said = [line for line in child.stderr() if line.endswith(" of them twice")]
    most = int(said[-1].split("at most ")[1].split(" ")[0]) if said else 0

    copies = {}
    Consumer(server, "orders", "check").drain(lambda message: count(copies, message["attributes"]["line"]))
    server.stop()
    valid = set(range(1, args.lines + 1)) - invalid
    doubled = sum(times - 1 for times in copies.values())
    checks = {
        "exit code 1, as lines were refused": code == 1,
        "every valid line was consumed": set(copies) == valid,
        f"{doubled} were there twice, at most {most} were announced": doubled <= most,
        "every invalid line was named with a reason": set(reported) == invalid and all(reported.values()),
        f"memory at most {peak / 1024:.0f} MiB": peak < 100 * 1024,
    }
    print(f"sent in {took:.0f} s: {args.lines / took:.0f} lines/s")
    return verdict(checks)


def count(copies, line):
    copies[line] = copies.get(line, 0) + 1


def journal_line(path):
    """The line up to which the journal says that everything is settled."""
    try:
        with open(path + ".journal") as journal:
            return json.loads(journal.read() or "{}").get("line", 0)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lines", type=int, default=100_000)
    options.add_argument("--kills", type=int, default=0)
    options.add_argument("--seed", type=int, default=1)
    main(options, run)
