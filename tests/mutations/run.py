#!/usr/bin/env python3
"""Breaks the invariants in the code, one at a time, and shows that the simulation, or a test, notices.

    tests/mutations/run.py              all mutations: a scratch copy is built once, then each plays its recorded seed
    tests/mutations/run.py NAME...      these
    tests/mutations/run.py --search     plays seeds from 0 until each is caught, and prints the first that catches it
    tests/mutations/run.py --check      only checks that every mutation still finds its place in the code (quick; part of the gate)

The scratch copy is target/mutations: the sources with all mutations compiled in, each asleep until DMS_MUTATION names it. The product
has no such switch. Each mutation is recorded with the rule that it breaks and a seed that shows it; after a change of the
simulation or the worker a seed may tell another story: --search finds a new one.

What cannot happen in its worlds, or is too rare there, is recorded with the test that catches it instead.

Two mistakes are not here: a failing acknowledgement that does not wait for the polls, and suspects that an empty poll makes forgotten.
Unit tests of src/worker/isolation/ hold those.
"""

import os
import json
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


@dataclass(frozen=True)
class Tested:
    name: str
    file: str
    before: str
    after: str
    binary: str  # "lib" or "it"
    test: str  # the full name of the test that fails
    seed: int | None = None  # of a power cut that shows it, where the first few do not


MUTATIONS = [
    Mutation("failure-is-success", "src/worker/settlement/ledger.rs",
             "self.until(|verdict| verdict.is_some_and(Verdict::settles))",
             'self.until(|verdict| verdict.is_some_and(Verdict::settles) '
             '|| (verdict.is_some() && crate::mutated("failure-is-success")))',
             "Handled", 1),
    Mutation("stopped-is-success", "src/worker/failure/mod.rs",
             "HandlerOutcome::Interrupted => return Decision::Release,",
             'HandlerOutcome::Interrupted | HandlerOutcome::TimedOut if crate::mutated("stopped-is-success") => '
             "return Decision::Acknowledge,\n            HandlerOutcome::Interrupted => return Decision::Release,",
             "Handled", 1),
    Mutation("names-all", "src/worker/pipeline/ack.rs",
             "batch.messages().iter().take(reported.done + 1)",
             'batch.messages().iter().take(if crate::mutated("names-all") { batch.messages().len() } else { reported.done + 1 })',
             "Prefix", 2),
    Mutation("acknowledged-twice", "src/worker/pipeline/ack.rs",
             "let answer = context.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;",
             'if crate::mutated("acknowledged-twice") { drop(context.source.acknowledge(&acks, lease.ends_at()).await); }\n'
             "    let answer = context.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;",
             "Once", 0),
    Mutation("no-margin", "src/worker/settlement/lease.rs",
             "let margin = (round_trip * 2).max(least_margin(ack_wait)).min(ack_wait / 2);",
             'let margin = if crate::mutated("no-margin") { Duration::ZERO } '
             "else { (round_trip * 2).max(least_margin(ack_wait)).min(ack_wait / 2) };",
             "Deadline", 0),
    Mutation("lease-from-receipt", "src/worker/settlement/lease.rs",
             "let Self { sent, waited } = self;",
             "let Self { sent, waited } = self;\n"
             '        if crate::mutated("lease-from-receipt") { return received; }',
             "Deadline", 0),
    Mutation("no-notice", "src/worker/pipeline/batch.rs",
             "() = sleep_until(lease.notice_at()), if !cancelled.is_cancelled() =>",
             '() = sleep_until(if crate::mutated("no-notice") { lease.stop_at() } else { lease.notice_at() }), '
             "if !cancelled.is_cancelled() =>",
             "Deadline", 13),
    Mutation("never-stopped", "src/worker/pipeline/call.rs",
             "() = stop.cancelled() => None,",
             '() = stop.cancelled(), if !crate::mutated("never-stopped") => None,',
             "Deadline", 13),
    Mutation("no-suspects", "src/worker/isolation/mod.rs",
             "                state.quarantine.add(&failed, leases);",
             '                if !crate::mutated("no-suspects") { state.quarantine.add(&failed, leases); }',
             "NoCollateral", 3),
    Mutation("suspects-by-the-answer", "src/worker/pipeline/ack.rs",
             "    drop(closed);\n",
             '    if crate::mutated("suspects-by-the-answer") && answer.is_err() {\n'
             "        closed.iter_mut().for_each(ClosedPolls::clear);\n    }\n    drop(closed);\n",
             "NoCollateral", 24),
    Mutation("nothing-remembered", "src/worker/dedup/in_progress.rs",
             "        if self.succeeded.get(identity).is_some() {",
             '        if self.succeeded.get(identity).is_some() && !crate::mutated("nothing-remembered") {',
             "Memory", 2),
    Mutation("everything-remembered", "src/worker/dedup/in_progress.rs",
             "                Lookup::Started(self.begun)\n",
             '                if crate::mutated("everything-remembered") { Lookup::Succeeded } else { Lookup::Started(self.begun) }\n',
             "Handled", 0),
    Mutation("side-by-side", "src/worker/dedup/in_progress.rs",
             "        let entry = match self.runs.get_mut(identity) {",
             '        if crate::mutated("side-by-side") { return Lookup::Started(0); }\n'
             "        let entry = match self.runs.get_mut(identity) {",
             "Memory", 2),
    Mutation("more-than-there-is-room-for", "src/worker/limit/inflight.rs",
             "self.limit().saturating_sub(self.messages)",
             '(self.limit() + 10 * usize::from(self.limit() > 0 && crate::mutated("more-than-there-is-room-for")))'
             ".saturating_sub(self.messages)",
             "Room", 1),
    Mutation("permit-leaks", "src/worker/pipeline/tasks.rs",
             "            permit: Some(permit),\n        };\n        // Not",
             '            permit: if crate::mutated("permit-leaks") { std::mem::forget(permit); None } '
             "else { Some(permit) },\n        };\n        // Not",
             "Quiet", 2),
    Mutation("lost-wake-up", "src/worker/isolation/mod.rs",
             "        self.changed.notify_waiters();\n    }\n\n    fn lock",
             '        if !crate::mutated("lost-wake-up") { self.changed.notify_waiters(); }\n    }\n\n    fn lock',
             "Quiet", 12),
    Mutation("gives-up", "src/worker/pipeline/poller.rs",
             "        self.access_refused = is_waited_out(&error",
             '        if crate::mutated("gives-up") { return Err(error); }\n        self.access_refused = is_waited_out(&error',
             "Quiet", 6),
    Mutation("fifo-side-by-side", "src/worker/setup.rs",
             "if fifo && settings.ordering.is_none() {",
             'if fifo && settings.ordering.is_none() && !crate::mutated("fifo-side-by-side") {',
             "Order", 4),
    Mutation("server-loses-failures", "crates/server/src/broker/embedded/state/lease.rs",
             "                    settlement.failed.push((seq, failures));",
             '                    if crate::mutated("server-loses-failures") { continue; }\n'
             "                    settlement.failed.push((seq, failures));",
             "NothingLost", 1),
    Mutation("release-counts", "crates/server/src/broker/embedded/state/lease.rs",
             "            Self::Acknowledged { stop: StopReason::Released, .. } | Self::Released => MessageOutcome::Spared,",
             '            Self::Acknowledged { stop: StopReason::Released, .. } if crate::mutated("release-counts") => '
             "MessageOutcome::Failed(FAILED, None),\n"
             "            Self::Acknowledged { stop: StopReason::Released, .. } | Self::Released => MessageOutcome::Spared,",
             "Blame", 1),
    Mutation("reject-is-success", "crates/server/src/broker/embedded/state/lease.rs",
             "                    Some((_, cause)) => MessageOutcome::Rejected(cause.as_ref()),",
             '                    Some(_) if crate::mutated("reject-is-success") => MessageOutcome::Done,\n'
             "                    Some((_, cause)) => MessageOutcome::Rejected(cause.as_ref()),",
             "Rejects", 24),
    Mutation("reject-is-failure", "src/worker/failure/mod.rs",
             "let rejects = self.dead_letters && self.source.extensions().reject();",
             'let rejects = self.dead_letters && self.source.extensions().reject() && !crate::mutated("reject-is-failure");',
             "Rejects", 24),
    Mutation("not-started-is-failure", "src/worker/settlement/ledger.rs",
             "            Some(Verdict::NotStarted) => Stop::Release,",
             '            Some(Verdict::NotStarted) if !crate::mutated("not-started-is-failure") => Stop::Release,',
             "Blame", 1),
    Mutation("stop-drops-polls", "src/worker/pipeline/drain.rs",
             "    let are_in = async { while",
             '    if crate::mutated("stop-drops-polls") { pollers.abort_all(); }\n    let are_in = async { while',
             "Waited", 116),
    Mutation("stop-waits-for-polls", "src/worker/pipeline/drain.rs",
             "        context.polling.in_flight.end(&*context.source, PollScope::All).await;\n        std::future",
             '        if !crate::mutated("stop-waits-for-polls") { context.polling.in_flight.end(&*context.source, PollScope::All).await; }\n'
             "        std::future",
             "Quiet", 0),
]

UNSYNCED = "store::disk::tests::power_cut::unsynced::"
POSTGRES = "store::postgres::tests::"
POWER_CUTS = "store::disk::tests::power_cut::what_was_answered_survives_power_cuts"
FAILING_DISK = "store::disk::tests::power_cut::what_was_answered_survives_failing_syncs_and_a_full_disk"

TESTED = [
    # The client would not send it all the same.
    Tested("release-unannounced", "src/worker/settlement/ledger.rs",
           "        if !extensions.release() {",
           '        if !extensions.release() && !crate::mutated("release-unannounced") {',
           "lib", "worker::tests::extensions::messages_that_did_not_start_are_released"),
    Tested("ended-only-once", "src/worker/fetch/polls.rs",
           "            if timeout(pause, self.until_in(which)).await.is_ok() {",
           '            if timeout(pause, self.until_in(which)).await.is_ok() || crate::mutated("ended-only-once") {',
           "lib", "worker::tests::stops::a_lost_request_to_end_polls_is_repeated"),
    Tested("early-end-forgotten", "crates/server/src/state/endable_polls.rs",
           "                None => named.early.push_back((now, id)),",
           '                None if crate::mutated("early-end-forgotten") => {}\n'
           "                None => named.early.push_back((now, id)),",
           "it", "server::extensions::a_call_that_was_ended_before_it_arrived_leases_nothing"),
    Tested("copy-swallowed", "src/worker/pipeline/process.rs",
           "match handled || !context.records.has_unique_key() {",
           'match handled || !context.records.has_unique_key() || crate::mutated("copy-swallowed") {',
           "lib", "worker::tests::copies::a_copy_is_handled_while_its_original_waits_for_its_acknowledgement"),
    Tested("gone-is-forgotten", "src/worker/dedup/in_progress.rs",
           "                AfterAck::Gone if entry.batches > 1 =>",
           '                AfterAck::Gone if entry.batches > 1 && !crate::mutated("gone-is-forgotten") =>',
           "lib", "worker::dedup::in_progress::tests::a_settled_message_is_not_run_again_for_a_batch_that_still_holds_it"),
    Tested("rejected-loops-at-once", "src/worker/pipeline/ack.rs",
           "reported.fails().then(|| batch.failure(reported.done)).flatten() {",
           'reported.fails().then(|| batch.failure(reported.done)).flatten().filter(|_| !crate::mutated("rejected-loops-at-once")) {',
           "lib", "worker::tests::extensions::a_rejected_message_without_dead_letters_is_redelivered_slowly"),
    Tested("undecodable-is-handled", "src/worker/pipeline/process.rs",
           "    if let Some(reason) = job.delivery.undecodable() {",
           '    if let Some(reason) = job.delivery.undecodable().filter(|_| !crate::mutated("undecodable-is-handled")) {',
           "lib", "worker::tests::policies::an_unreadable_message_is_treated_as_undecodable"),
    Tested("undecodable-ends-the-answer", "src/wire/received.rs",
           "    Ok((scan.since(start), parts))",
           '    if crate::mutated("undecodable-ends-the-answer") { return Ok((scan.since(start), Ok(parts?))); }\n'
           "    Ok((scan.since(start), parts))",
           "lib", "wire::received::tests::a_message_that_cannot_be_read_harms_no_other"),
    Tested("peers-share-a-lock", "crates/server/src/auth/key_lock.rs",
           "        if !peers.contains_key(&peer) {",
           '        let peer = peer.filter(|_| !crate::mutated("peers-share-a-lock"));\n        if !peers.contains_key(&peer) {',
           "lib", "auth::key_lock::tests::peers_are_counted_apart_and_a_right_signature_clears_its_own"),
    Tested("lock-keeps-out", "crates/server/src/auth/keys.rs",
           "            Ok(()) => {\n                key.lock.clear(sender.peer);",
           '            Ok(()) if crate::mutated("lock-keeps-out")\n'
           "                && key.lock.strike(sender.peer, Instant::now()) == Strike::Locked =>\n"
           "            {\n"
           "                Err(key.refuse(&authorization.access_key, sender.peer, &SignatureError::BodyHash))\n"
           "            }\n"
           "            Ok(()) => {\n                key.lock.clear(sender.peer);",
           "it", "server::auth::wrong_signatures_never_lock_out_a_correct_one"),
    Tested("refused-key-is-final", "src/client/key_guard.rs",
           "        if passing || self.worked.load(Ordering::Acquire) {",
           '        if (passing || self.worked.load(Ordering::Acquire)) && !crate::mutated("refused-key-is-final") {',
           "it", "client::a_key_that_has_worked_is_tried_again_by_one_request"),
    Tested("late-release", "src/layers/memory_store.rs",
           "if owner == token) {",
           'if owner == token || crate::mutated("late-release")) {',
           "lib", "layers::memory_store::tests::a_late_release_frees_no_claim_but_its_own"),
    Tested("retry-after-obeyed", "src/retry_after.rs",
           "        self.asked.min(MAX_RETRY_AFTER)",
           '        if crate::mutated("retry-after-obeyed") { self.asked } else { self.asked.min(MAX_RETRY_AFTER) }',
           "lib", "retry_after::tests::nobody_waits_longer_than_five_minutes"),
    # A cluster makes a call again that was not made.
    Tested("stop-means-undone", "crates/server/src/broker/embedded/reply.rs",
           "        self.is_begun = true;",
           '        self.is_begun = !crate::mutated("stop-means-undone");',
           "lib", "broker::embedded::tests::stopping::a_stop_leaves_the_change_that_is_being_stored_unknown_and_refuses_the_one_behind_it"),
    # The store in PostgreSQL; PostgreSQL has to be installed.
    Tested("gap-believed", "crates/server/src/store/postgres/read.rs",
           "            (_, true) => read(Proof::Latest)",
           '            (found, true) if crate::mutated("gap-believed") => Ok(found),\n            (_, true) => read(Proof::Latest)',
           "lib", POSTGRES + "reading::an_old_primary_that_answers_reads_sets_nothing_aside"),
    Tested("beat-unreplicated", "crates/server/src/store/postgres/member.rs",
           "        if session.warnings() != warnings {\n            return Err(PostgresError::Failed(",
           '        if session.warnings() != warnings && !crate::mutated("beat-unreplicated") {\n            return Err(PostgresError::Failed(',
           "lib", POSTGRES + "deciding::a_cancelled_wait_for_the_standby_is_no_answer"),
    Tested("fence-unlocked", "crates/server/src/store/postgres/commit.rs",
           "        let mut value = 4;",
           '        if crate::mutated("fence-unlocked") {\n            sql = sql.replace(" FOR SHARE", "");\n        }\n'
           "        let mut value = 4;",
           "lib", POSTGRES + "ownership::a_take_over_waits_for_the_commit_that_is_under_way"),
    Tested("unconfirmed", "crates/server/src/store/postgres/commit.rs",
           "                CommitAttempt::Repeated if is_unsure => match",
           '                CommitAttempt::Repeated if is_unsure && crate::mutated("unconfirmed") => return Ok(()),\n'
           "                CommitAttempt::Repeated if is_unsure => match",
           "lib", POSTGRES + "deciding::a_commit_whose_answer_is_lost_is_decided_by_its_repetition"),
    Tested("warnings-ignored", "crates/server/src/store/postgres/commit.rs",
           "            return CommitAttempt::Unsure(\"PostgreSQL warned that the commit may not be replicated\".to_owned());",
           '            if !crate::mutated("warnings-ignored") {\n                return CommitAttempt::Unsure("PostgreSQL warned".to_owned());\n            }',
           "lib", POSTGRES + "deciding::a_cancelled_wait_for_the_standby_is_no_answer"),
    Tested("serves-silent", "crates/server/src/store/postgres/duty.rs",
           "        !self.is_lost() && Moment::now()",
           '        crate::mutated("serves-silent") || !self.is_lost() && Moment::now()',
           "lib", POSTGRES + "ownership::an_owner_that_is_silent_stops_serving_before_others_take_over"),
    Tested("sessions-left", "crates/server/src/store/postgres/member.rs",
           "            end_sessions(session, id).await?;",
           '            if !crate::mutated("sessions-left") {\n                end_sessions(session, id).await?;\n            }',
           "lib", POSTGRES + "ownership::a_stopped_owner_is_taken_over_each_time_whatever_its_sessions_hold"),
    # What a power cut shows: a sync that is left out.
    Tested("commit-unsynced", "crates/server/src/store/disk/log/mod.rs",
           "    file_ops::sync_data(file)?;",
           '    if !crate::mutated("commit-unsynced") { file_ops::sync_data(file)?; }',
           "lib", POWER_CUTS),
    Tested("new-file-unnamed", "crates/server/src/store/disk/log/segment.rs",
           "        file_ops::sync_all(file)?;\n        file_ops::sync_directory(&self.path)",
           "        file_ops::sync_all(file)?;\n"
           '        if crate::mutated("new-file-unnamed") { return Ok(()); }\n'
           "        file_ops::sync_directory(&self.path)",
           "lib", POWER_CUTS),
    Tested("head-before-size", "crates/server/src/store/disk/log/segment.rs",
           "        file_ops::sync_all(file)?;\n        self.begin(",
           '        if !crate::mutated("head-before-size") { file_ops::sync_all(file)?; }\n        self.begin(',
           "lib", POWER_CUTS, 26),
    Tested("accepted-as-it-is", "crates/server/src/store/disk/recovery.rs",
           "                        frames.rewrite(begin).map_err(ReadError::Io)?;",
           '                        if !crate::mutated("accepted-as-it-is") { frames.rewrite(begin).map_err(ReadError::Io)?; }',
           "lib", FAILING_DISK, 53),
    Tested("accepted-unsynced", "crates/server/src/store/disk/recovery.rs",
           "            file_ops::sync_data(&file).map_err(ReadError::Io)?;",
           '            if !crate::mutated("accepted-unsynced") { file_ops::sync_data(&file).map_err(ReadError::Io)?; }',
           "lib", FAILING_DISK, 41),
    Tested("made-file-unnamed", "crates/server/src/store/disk/recovery.rs",
           "    directory.begin(file, segment, size)",
           '    if crate::mutated("made-file-unnamed") { return Ok(()); }\n    directory.begin(file, segment, size)',
           "lib", UNSYNCED + "the_first_file_is_made_again_if_that_failed"),
    Tested("journal-overlooked", "crates/server/src/store/disk/index/open.rs",
           'if has_bytes("db-wal") || has_bytes("db-journal") || ',
           'if has_bytes("db-wal") || has_bytes("db-journal") && !crate::mutated("journal-overlooked") || ',
           "lib", "store::disk::index::open::tests::a_file_is_not_cut_short_while_there_is_a_journal"),
    Tested("log-removed-too-early", "crates/server/src/store/disk/index/sweep.rs",
           '        self.copy_log("FULL")',
           '        if crate::mutated("log-removed-too-early") { return Ok(()); }\n        self.copy_log("FULL")',
           "lib", POWER_CUTS),
    Tested("index-unsynced", "crates/server/src/store/disk/index/open.rs",
           '    conn.pragma_update(None, "synchronous", "NORMAL")',
           '    conn.pragma_update(None, "synchronous", if crate::mutated("index-unsynced") { "OFF" } else { "NORMAL" })',
           "lib", POWER_CUTS),
    Tested("failed-commit-left", "crates/server/src/store/disk/log/mod.rs",
           "        if let Some(until) = self.dirty_until {",
           '        if let Some(until) = self.dirty_until.filter(|_| !crate::mutated("failed-commit-left")) {',
           "lib", FAILING_DISK, 15),
    Tested("failed-sync-trusted", "crates/server/src/store/disk/log/zeros.rs",
           "        file_ops::write(file, &ZEROS[..length], begin)?;",
           "        let mut found = vec![1; length];\n"
           '        if crate::mutated("failed-sync-trusted") { pread::read(file, &mut found, begin)?; }\n'
           "        if found != ZEROS[..length] { file_ops::write(file, &ZEROS[..length], begin)?; }",
           "lib", FAILING_DISK, 40),
    Tested("zeros-of-others-trusted", "crates/server/src/store/disk/log/zeros.rs",
           "        if look != zeros || !pread::is_hole(file, begin, length as u64) {",
           '        if look != zeros || !(crate::mutated("zeros-of-others-trusted") || pread::is_hole(file, begin, length as u64)) {',
           "lib", UNSYNCED + "a_refused_commit_stays_away_when_another_process_finds_it_wiped"),
    Tested("end-of-the-log-only", "crates/server/src/store/disk/recovery.rs",
           "    clear(file, SEGMENT_HEADER, size)?;",
           '    if !crate::mutated("end-of-the-log-only") { clear(file, SEGMENT_HEADER, size)?; }',
           "lib", UNSYNCED + "a_refused_commit_stays_away_at_the_beginning_of_a_file"),
    Tested("first-file-accepted", "crates/server/src/store/disk/recovery.rs",
           "        Tail::Zeros => adopt_empty(directory, &file, 1),",
           '        Tail::Zeros if !crate::mutated("first-file-accepted") => adopt_empty(directory, &file, 1),\n        Tail::Zeros => Ok(()),',
           "lib", UNSYNCED + "the_first_file_is_made_again_if_that_failed"),
    Tested("empty-file-left", "crates/server/src/store/disk/log/mod.rs",
           "        if self.end.offset == SEGMENT_HEADER {",
           '        if self.end.offset == SEGMENT_HEADER && !crate::mutated("empty-file-left") {',
           "lib", UNSYNCED + "a_larger_commit_leaves_no_file_without_commits_behind"),
    Tested("cut-head-believed", "crates/server/src/store/disk/log/frame_reader.rs",
           "            |head: &FrameHeader| head.number == number",
           '            |head: &FrameHeader| crate::mutated("cut-head-believed") || head.number == number',
           "lib", "store::disk::tests::a_frame_whose_head_is_cut_by_the_border_of_a_sector_is_wiped"),
    Tested("part-of-a-file-stays", "crates/server/src/store/disk/log/next_segment.rs",
           "        if *partial {",
           '        if *partial && !crate::mutated("part-of-a-file-stays") {',
           "lib", FAILING_DISK, 68),
]


def place(mutation: Mutation | Tested, text: str) -> str:
    found = text.count(mutation.before)
    if found != 1:
        sys.exit(f"{mutation.name}: its place is in {mutation.file} {found} times, not once: mend tests/mutations/run.py")
    return text.replace(mutation.before, mutation.after)


def mutate(root: Path) -> None:
    """Puts all mutations into the sources under `root`."""
    for mutation in MUTATIONS + TESTED:
        path = root / mutation.file
        path.write_text(place(mutation, path.read_text()))
    for file in ("src/lib.rs", "crates/server/src/lib.rs"):
        (root / file).write_text((root / file).read_text() + SWITCH)
    # Another version, so that its build results are never used for the product.
    for file, name in (("Cargo.toml", r"\[workspace.package\]"), ("Cargo.lock", r'name = "dms-(?:protocol|server|worker|worker-cli)"')):
        text = (root / file).read_text()
        (root / file).write_text(re.sub(rf'({name}\nversion = "[0-9.]+)"', r'\1+mutated"', text))


def copy() -> None:
    """A fresh copy of what git knows; what was built there before stays."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for part in ("src", "tests", "crates"):
        shutil.rmtree(SCRATCH / part, ignore_errors=True)
    for file in files:
        (SCRATCH / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, SCRATCH / file)


def build() -> dict[str, str]:
    """The test binaries, by name."""
    copy()
    mutate(SCRATCH)
    command = ["cargo", "test", "--locked", "--no-run", "--lib", "--test", "it", "--message-format", "json-render-diagnostics"]
    # What the product has built of its dependencies need not be built again.
    env = {"CARGO_TARGET_DIR": str(ROOT / "target")} | os.environ
    built = subprocess.run(command, cwd=SCRATCH, env=env, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    tests = [message for message in messages if message.get("executable") and message["profile"]["test"]]
    return {binary_of(Path(test["manifest_path"]), test["target"]["name"]): test["executable"] for test in tests}


def binary_of(file: Path, target: str) -> str:
    """The binary of a target, by a file of its crate: "server it", "worker lib"."""
    crate = next((part for part in ("cli", "protocol", "server") if part in file.parts), "worker")
    return f"{crate} {'it' if target == 'it' else 'lib'}"


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


def passes(binaries: dict[str, str], mutation: Tested, awake: str) -> bool:
    env = os.environ | {"DMS_MUTATION": awake, "RUST_BACKTRACE": "0"}
    if mutation.seed is not None:
        env["DMS_POWER_SEED"] = str(mutation.seed)
    binary = binaries[binary_of(Path(mutation.file), mutation.binary)]
    command = [binary, mutation.test, "--exact"]
    try:
        played = subprocess.run(command, cwd=SCRATCH, env=env, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        # It waits for what the mistake prevents.
        return False
    if " 1 passed" not in played.stdout and " 1 failed" not in played.stdout:
        sys.exit(f"{mutation.name}: there is no test {mutation.test}")
    return played.returncode == 0


def show_tested(binaries: dict[str, str], mutation: Tested) -> bool:
    if not passes(binaries, mutation, "none"):
        sys.exit(f"without a mutation, {mutation.test} fails too")
    caught = not passes(binaries, mutation, mutation.name)
    print(f"{mutation.name:30} {'caught' if caught else 'NOT CAUGHT'} by {mutation.test}", flush=True)
    return caught


def main(arguments: list[str]) -> int:
    for mutation in MUTATIONS + TESTED:
        place(mutation, (ROOT / mutation.file).read_text())
    if "--check" in arguments:
        return 0
    names = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    tested = [mutation for mutation in TESTED if not names or mutation.name in names]
    binaries = build()
    world = binaries["worker it"]
    seeds = sorted({mutation.seed for mutation in chosen})
    healthy = [seed for seed in seeds if play(world, "none", seed, 1) is None]
    if healthy != seeds:
        sys.exit(f"without a mutation, seeds {sorted(set(seeds) - set(healthy))} fail too")
    missed = [mutation.name for mutation in chosen if not show(world, mutation, "--search" in arguments)]
    missed += [mutation.name for mutation in tested if not show_tested(binaries, mutation)]
    if missed:
        print(f"not caught as they should be: {', '.join(missed)}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
