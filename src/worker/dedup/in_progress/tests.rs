#![allow(clippy::unwrap_used)]

use futures_util::poll;

use super::*;

const KEEP: Duration = Duration::from_secs(60);

fn at(place: u64) -> Identity {
    Identity::Place(place, Some(5))
}

fn settled(runs: &RunRegistry, place: u64, next: AfterAck) {
    runs.settled(1, [(at(place), next)].into_iter());
}

#[tokio::test(start_paused = true)]
async fn a_success_is_known_until_its_message_is_settled_or_for_a_while_if_it_is_redelivered() {
    let runs = RunRegistry::new(KEEP);
    for place in [1, 2] {
        runs.begin(at(place), 1).await.unwrap().succeeded();
        assert!(runs.begin(at(place), 1).await.is_none(), "before the acknowledgement");
    }
    settled(&runs, 1, AfterAck::Gone);
    settled(&runs, 2, AfterAck::Redelivered);
    assert!(runs.lock().runs.is_empty());
    drop(runs.begin(at(1), 1).await.unwrap());
    assert!(runs.begin(at(2), 1).await.is_none());
    tokio::time::advance(KEEP).await;
    assert!(runs.begin(at(2), 1).await.is_some());
}

/// In an ordered batch, the turn of a message may come long after it was redelivered, run and acknowledged.
#[tokio::test(start_paused = true)]
async fn a_settled_message_is_not_run_again_for_a_batch_that_still_holds_it() {
    let runs = RunRegistry::new(KEEP);
    let it = || [at(7)].into_iter();
    runs.hold(it());
    runs.hold(it());
    runs.begin(at(7), 2).await.unwrap().succeeded();
    runs.settled(2, it().map(|identity| (identity, AfterAck::Gone)));
    runs.release(it());
    assert!(runs.begin(at(7), 1).await.is_none(), "the other batch holds it");
    runs.release(it());
    assert!(runs.lock().runs.is_empty());
}

/// Whatever the result of a run, nothing remains of a message that no batch holds.
#[tokio::test(start_paused = true)]
async fn nothing_remains_of_a_message_that_no_batch_holds() {
    for next in [AfterAck::Gone, AfterAck::Redelivered, AfterAck::RunAgain] {
        for succeeds in [true, false] {
            for late in [true, false] {
                let runs = RunRegistry::new(KEEP);
                runs.hold([at(7)].into_iter());
                let run = runs.begin(at(7), 1).await.unwrap();
                let end = |run: ActiveRun<'_>| if succeeds { run.succeeded() } else { drop(run) };
                let mut run = Some(run);
                if !late {
                    run.take().into_iter().for_each(end);
                }
                settled(&runs, 7, next);
                run.into_iter().for_each(end);
                runs.release([at(7)].into_iter());
                assert!(runs.lock().runs.is_empty(), "{next:?}, {succeeds}, {late}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_in_progress_is_waited_for() {
    for (again, succeeds) in [(false, true), (true, true), (false, false), (true, false)] {
        let runs = RunRegistry::new(KEEP);
        let first = runs.begin(at(7), 1).await.unwrap();
        if again {
            settled(&runs, 7, AfterAck::Redelivered);
        }
        let second = runs.begin(at(7), 1);
        tokio::pin!(second);
        assert!(poll!(&mut second).is_pending());
        if succeeds {
            first.succeeded();
        } else {
            drop(first);
        }
        assert_eq!(second.await.is_none(), succeeds);
    }
}

/// In an ordered batch the success of the old run must not count, but there is still one run at a time.
#[tokio::test(start_paused = true)]
async fn a_run_that_outlasts_its_batch_stays_registered_until_it_ends() {
    for succeeds in [true, false] {
        let runs = RunRegistry::new(KEEP);
        let old = runs.begin(at(7), 1).await.unwrap();
        settled(&runs, 7, AfterAck::RunAgain);
        let second = runs.begin(at(7), 1);
        tokio::pin!(second);
        assert!(poll!(&mut second).is_pending(), "the old run goes on");
        if succeeds {
            old.succeeded();
        } else {
            drop(old);
        }
        let second = second.await.expect("nothing is remembered of the old run");
        assert!(runs.begin_at_once(at(7), 1).is_err(), "there is the new run now");
        second.succeeded();
        assert!(runs.begin(at(7), 1).await.is_none());
    }
}

/// For example an earlier batch whose acknowledgement was retried for long. It knows nothing of the later run.
#[tokio::test(start_paused = true)]
async fn a_batch_affects_only_its_own_runs() {
    for succeeds_before in [true, false] {
        let runs = RunRegistry::new(KEEP);
        let mut run = Some(runs.begin(at(7), 2).await.unwrap());
        if succeeds_before {
            run.take().unwrap().succeeded();
        }
        settled(&runs, 7, AfterAck::Gone);
        run.into_iter().for_each(ActiveRun::succeeded);
        assert!(runs.begin(at(7), 3).await.is_none(), "it succeeded");
    }
}

/// The end of an old run says nothing about a later run.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_old_run_does_not_affect_a_new_one() {
    let runs = RunRegistry::new(KEEP);
    let old = runs.begin(at(7), 1).await.unwrap();
    runs.lock().runs.clear();
    let _new = runs.begin(at(7), 1).await.unwrap();
    drop(old);
    assert!(runs.begin_at_once(at(7), 1).is_err(), "the new run goes on");
}

#[tokio::test(start_paused = true)]
async fn if_a_run_fails_one_of_those_that_wait_runs() {
    let runs = RunRegistry::new(KEEP);
    let first = runs.begin(at(7), 1).await.unwrap();
    let (second, third) = (runs.begin(at(7), 1), runs.begin(at(7), 1));
    tokio::pin!(second, third);
    assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
    drop(first);
    let second = second.await.unwrap();
    assert!(poll!(&mut third).is_pending());
    second.succeeded();
    assert!(third.await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_success_after_the_acknowledgement_is_remembered() {
    let runs = RunRegistry::new(KEEP);
    let run = runs.begin(at(7), 1).await.unwrap();
    settled(&runs, 7, AfterAck::Redelivered);
    run.succeeded();
    assert!(runs.begin(at(7), 1).await.is_none());
    assert!(runs.lock().runs.is_empty());
}
