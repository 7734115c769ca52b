#!/usr/bin/env python3
"""Breaks the invariants in the code, one at a time, and shows that the simulation notices.

    tests/mutations/run.py              all mutations: a scratch copy is built once, then each plays its recorded seed
    tests/mutations/run.py NAME...      these
    tests/mutations/run.py --search     plays seeds from 0 until each is caught, and prints the first that catches it
    tests/mutations/run.py --check      only checks that every mutation still finds its place in the code (quick; part of the gate)

The scratch copy is target/mutations: the sources with all mutations compiled in, each asleep until DMS_MUTATION names it. The product
has no such switch. Each mutation is recorded with the rule that it breaks and a seed that shows it; after a change of the
simulation or the worker a seed may tell another story: --search finds a new one.

Two mistakes are too rare in its worlds to be here: a failing acknowledgement that does not wait for the polls, and suspects that an
empty poll makes forgotten. Unit tests of src/worker/isolation.rs and suspects.rs hold those.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "target" / "mutations"
MOST_SEEDS = 3000

SWITCH = """
/// Whether this mutation is awake.
pub(crate) fn mutated(name: &str) -> bool {
    std::env::var("DMS_MUTATION").is_ok_and(|awake| awake == name)
}
"""


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    before: str  # exactly once in the file
    after: str  # with the mistake behind crate::mutated("…")
    rule: str  # what the simulation calls the breach
    seed: int  # one that shows it


MUTATIONS = [
    Mutation("failure-is-success", "src/worker/ledger.rs",
             "self.until(|verdict| verdict.is_some_and(Verdict::settles))",
             'self.until(|verdict| verdict.is_some_and(Verdict::settles) '
             '|| (verdict.is_some() && crate::mutated("failure-is-success")))',
             "Handled", 1),
    Mutation("stopped-is-success", "src/worker/failure.rs",
             "Outcome::Interrupted => return Decision::HandBack,",
             'Outcome::Interrupted | Outcome::TimedOut if crate::mutated("stopped-is-success") => '
             "return Decision::Acknowledge,\n            Outcome::Interrupted => return Decision::HandBack,",
             "Handled", 1),
    Mutation("names-all", "src/worker/acker.rs",
             "batch.messages().iter().take(told.done + 1)",
             'batch.messages().iter().take(if crate::mutated("names-all") { batch.messages().len() } else { told.done + 1 })',
             "Prefix", 2),
    Mutation("acknowledged-twice", "src/worker/acker.rs",
             "let answer = shared.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;",
             'if crate::mutated("acknowledged-twice") { drop(shared.source.acknowledge(&acks, lease.ends_at()).await); }\n'
             "    let answer = shared.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;",
             "Once", 0),
    Mutation("no-margin", "src/worker/lease.rs",
             "let margin = (round_trip * 2).max(MIN_MARGIN).min(ack_wait / 2);",
             'let margin = if crate::mutated("no-margin") { Duration::ZERO } '
             "else { (round_trip * 2).max(MIN_MARGIN).min(ack_wait / 2) };",
             "Deadline", 0),
    Mutation("lease-from-receipt", "src/worker/lease.rs",
             "let Self { sent, waited } = self;",
             "let Self { sent, waited } = self;\n"
             '        if crate::mutated("lease-from-receipt") { return received; }',
             "Deadline", 0),
    Mutation("no-notice", "src/worker/batch.rs",
             "() = sleep_until(lease.notice_at()), if !cancelled.is_cancelled() =>",
             '() = sleep_until(if crate::mutated("no-notice") { lease.stop_at() } else { lease.notice_at() }), '
             "if !cancelled.is_cancelled() =>",
             "Deadline", 13),
    Mutation("never-stopped", "src/worker/call.rs",
             "() = stop.cancelled() => None,",
             '() = stop.cancelled(), if !crate::mutated("never-stopped") => None,',
             "Deadline", 13),
    Mutation("no-suspects", "src/worker/isolation.rs",
             "                state.suspects.add(&failed, absence);",
             '                if !crate::mutated("no-suspects") { state.suspects.add(&failed, absence); }',
             "NoCollateral", 3),
    Mutation("suspects-by-the-answer", "src/worker/acker.rs",
             "    drop(closed);\n",
             '    if crate::mutated("suspects-by-the-answer") && answer.is_err() {\n'
             "        closed.iter_mut().for_each(Closed::acquit);\n    }\n    drop(closed);\n",
             "NoCollateral", 24),
    Mutation("nothing-remembered", "src/worker/known_runs.rs",
             "        if self.succeeded.recall(identity).is_some() {",
             '        if self.succeeded.recall(identity).is_some() && !crate::mutated("nothing-remembered") {',
             "Memory", 2),
    Mutation("everything-remembered", "src/worker/known_runs.rs",
             "                Known::Nothing(self.begun)\n",
             '                if crate::mutated("everything-remembered") { Known::Succeeded } else { Known::Nothing(self.begun) }\n',
             "Handled", 0),
    Mutation("side-by-side", "src/worker/known_runs.rs",
             "        let held = self.runs.entry(identity.clone()).or_default();\n        match",
             '        if crate::mutated("side-by-side") { return Known::Nothing(0); }\n'
             "        let held = self.runs.entry(identity.clone()).or_default();\n        match",
             "Memory", 2),
    Mutation("more-than-there-is-room-for", "src/worker/gate.rs",
             "self.limit().saturating_sub(self.messages)",
             '(self.limit() + 10 * usize::from(crate::mutated("more-than-there-is-room-for")))'
             ".saturating_sub(self.messages)",
             "Room", 1),
    Mutation("permit-leaks", "src/worker/runs.rs",
             "verdict: Verdict::Failed, permit: Some(permit) };",
             'verdict: Verdict::Failed, permit: if crate::mutated("permit-leaks") { std::mem::forget(permit); None } '
             "else { Some(permit) } };",
             "Quiet", 2),
    Mutation("lost-wake-up", "src/worker/isolation.rs",
             "        self.changed.notify_waiters();\n    }\n\n    fn lock",
             '        if !crate::mutated("lost-wake-up") { self.changed.notify_waiters(); }\n    }\n\n    fn lock',
             "Quiet", 3),
    Mutation("gives-up", "src/worker/poller.rs",
             "        self.kept_out = is_waited_out(&error",
             '        if crate::mutated("gives-up") { return Err(error); }\n        self.kept_out = is_waited_out(&error',
             "Quiet", 0),
    Mutation("fifo-side-by-side", "src/worker/mod.rs",
             "if fifo && settings.ordering.is_none() {",
             'if fifo && settings.ordering.is_none() && !crate::mutated("fifo-side-by-side") {',
             "Order", 4),
    Mutation("server-loses-failures", "src/server/broker/embedded/lease.rs",
             "                    settlement.failed.push((seq, failures));",
             '                    if crate::mutated("server-loses-failures") { continue; }\n'
             "                    settlement.failed.push((seq, failures));",
             "NothingLost", 0),
]


def place(mutation: Mutation, text: str) -> str:
    found = text.count(mutation.before)
    if found != 1:
        sys.exit(f"{mutation.name}: its place is in {mutation.file} {found} times, not once: mend tests/mutations/run.py")
    return text.replace(mutation.before, mutation.after)


def mutate(root: Path) -> None:
    """Puts all mutations into the sources under `root`."""
    for mutation in MUTATIONS:
        path = root / mutation.file
        path.write_text(place(mutation, path.read_text()))
    library = root / "src/lib.rs"
    library.write_text(library.read_text() + SWITCH)
    # Another version, so that what is built of it is never taken for what is built of the product.
    for file in ("Cargo.toml", "Cargo.lock"):
        text = (root / file).read_text()
        (root / file).write_text(re.sub(r'(name = "dms-worker"\nversion = "[0-9.]+)"', r'\1+mutated"', text, count=1))


def copy() -> None:
    """A fresh copy of what git knows; what was built there before stays."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for part in ("src", "tests"):
        shutil.rmtree(SCRATCH / part, ignore_errors=True)
    for file in files:
        (SCRATCH / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, SCRATCH / file)


def build() -> str:
    copy()
    mutate(SCRATCH)
    command = ["cargo", "test", "--locked", "--no-run", "--test", "it"]
    # What the product has built of its dependencies need not be built again.
    env = {"CARGO_TARGET_DIR": str(ROOT / "target")} | os.environ
    built = subprocess.run(command, cwd=SCRATCH, env=env, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    return str(SCRATCH / re.search(r"Executable .*\((.*)\)", built.stderr)[1])


def play(binary: str, mutation: str, first: int, seeds: int) -> tuple[list[str], int] | None:
    """The rules that the first seed breaks that breaks any, and the seed."""
    env = os.environ | {"DMS_MUTATION": mutation, "DMS_SIM_FIRST": str(first), "DMS_SIM_SEEDS": str(seeds), "RUST_BACKTRACE": "0"}
    test = "simulation::the_invariants_hold_whatever_goes_wrong"
    played = subprocess.run([binary, test, "--exact"], cwd=SCRATCH, env=env, capture_output=True, text=True)
    if played.returncode == 0:
        return None
    text = played.stdout + played.stderr
    seed = re.search(r"^seed (\d+) again", text, re.M)
    if not seed:
        sys.exit(text)
    return sorted(set(re.findall(r"^([A-Z]\w+): ", text, re.M))), int(seed[1])


def show(binary: str, mutation: Mutation, search: bool) -> bool:
    first, end, step = (0, MOST_SEEDS, 50) if search else (mutation.seed, mutation.seed + 1, 1)
    while first < end:
        breach = play(binary, mutation.name, first, step)
        if breach and mutation.rule in breach[0]:
            print(f"{mutation.name:30} caught as {', '.join(breach[0])} by seed {breach[1]}", flush=True)
            return True
        first = breach[1] + 1 if breach else first + step
    print(f"{mutation.name:30} NOT CAUGHT as {mutation.rule}", flush=True)
    return False


def main(arguments: list[str]) -> int:
    for mutation in MUTATIONS:
        place(mutation, (ROOT / mutation.file).read_text())
    if "--check" in arguments:
        return 0
    names = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    binary = build()
    seeds = sorted({mutation.seed for mutation in chosen})
    healthy = [seed for seed in seeds if play(binary, "none", seed, 1) is None]
    if healthy != seeds:
        sys.exit(f"without a mutation, seeds {sorted(set(seeds) - set(healthy))} fail too")
    missed = [mutation.name for mutation in chosen if not show(binary, mutation, "--search" in arguments)]
    if missed:
        print(f"not caught as they should be: {', '.join(missed)}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
