//! Changes that failing syncs leave in the page cache only, where another process finds them: the zeros in place of a refused
//! commit, and a file that was created.

use std::{path::Path, sync::Arc};

use crate::store::{
    StoredMessage,
    disk::{
        tests::power_cut::{
            Round, after_cut, directory,
            model::Model,
            open,
            watch::{Fault, OpKind},
            workload,
        },
        *,
    },
};

/// The number of power cuts tried at each point. Each leaves other parts of the unsynced changes.
const CUTS: u64 = 24;

fn append(seq: u64, size: usize) -> [Record; 1] {
    let json = "x".repeat(size);
    let message = StoredMessage {
        seq,
        entered_ms: 1,
        body_bytes: size,
        json: json.into(),
        tags: [].into(),
        ..StoredMessage::default()
    };
    [Record::Appended(StreamId(1), Arc::new(message))]
}

/// A log with a message of `before` bytes, in which a message of `refused` bytes was refused.
fn refuse(dir: &Path, before: usize, refused: usize) -> (Round, DiskStore) {
    let mut round = Round::begin(dir, Model::default(), fastrand::Rng::with_seed(0));
    let store = round.open(dir).unwrap();
    round.commit(&store, &[workload::create_queue(&Model::default())]).unwrap();
    round.commit(&store, &append(1, before)).unwrap();
    while store.maintain().unwrap() {}

    round.failing = true;
    round.watch.fail(Some(Box::new(|kind, _| (kind == OpKind::Sync).then_some(Fault::Failed))));
    round.commit(&store, &append(2, refused)).unwrap();
    round.commit(&store, &append(2, 10)).unwrap();
    round.failing = false;
    round.watch.fail(None);
    (round, store)
}

/// Another process continues, and the power is cut at any point after that.
fn stays_away(before: usize, refused: usize) {
    let dir = directory();
    let (mut round, store) = refuse(dir.path(), before, refused);
    store.release(false).unwrap();
    let store = round.open(dir.path()).unwrap();
    let opened = round.watch.len();
    round.commit(&store, &append(2, 1_000)).unwrap();
    cut_behind(opened, dir.path(), &round);
}

/// Cuts the power after each change of the disk from `first` on.
fn cut_behind(first: usize, dir: &Path, round: &Round) {
    let (mut platter, trace) = round.watch.end();
    trace[..first].iter().for_each(|done| platter.take(done));
    for behind in first..=trace.len() {
        for luck in 0..CUTS {
            let left = directory();
            platter.cut(dir, left.path(), &mut fastrand::Rng::with_seed(luck));
            let found = after_cut(left.path(), &round.may_hold(behind));
            assert!(found.is_ok(), "cut {luck} behind {behind} of {}: {}", trace.len(), found.unwrap_err());
        }
        trace.get(behind).into_iter().for_each(|done| platter.take(done));
    }
}

#[test]
fn a_refused_commit_stays_away_when_another_process_finds_it_wiped() {
    stays_away(1_000, 200);
}

/// Not even its end remains after a shorter commit in its place, because such a log would be refused as damaged.
#[test]
fn the_end_of_a_refused_commit_does_not_stay() {
    stays_away(1_000, 30_000);
}

#[test]
fn a_refused_commit_stays_away_at_the_beginning_of_a_file() {
    stays_away(63_500, 30_000);
}

/// The process continues with a commit that needs a larger file than the one in which it was refused.
#[test]
fn a_larger_commit_leaves_no_file_without_commits_behind() {
    let dir = directory();
    let (mut round, store) = refuse(dir.path(), 60_000, 8_000);
    round.commit(&store, &append(2, 70_000)).unwrap();
    cut_behind(round.watch.len(), dir.path(), &round);
}

/// The first segment cannot be brought to the disk, and cannot be removed either.
#[test]
fn the_first_file_is_made_again_if_that_failed() {
    let dir = directory();
    let mut round = Round::begin(dir.path(), Model::default(), fastrand::Rng::with_seed(0));
    let mut syncs = 0;
    let fails = move |kind: OpKind, path: &Path| {
        syncs += usize::from(kind == OpKind::Sync && path.ends_with("0000000001.log"));
        (syncs > 1).then_some(Fault::Failed)
    };
    round.watch.fail(Some(Box::new(fails)));
    open(dir.path()).unwrap_err();
    round.watch.fail(None);
    let failed = round.watch.len();
    round.open(dir.path()).unwrap();
    cut_behind(failed, dir.path(), &round);
}
