//! Rejected messages, under every policy, on every kind of queue, with and without the server's extensions: each is run as often
//! as its policy says, and where nothing takes it away it is redelivered at growing intervals, with a warning.

use dms_worker::worker::{OnFailure, OnReject, OnUndecodable, Republish};

use super::*;
use crate::log::Log;

/// How long each world lasts.
const LONG: Duration = Duration::from_secs(600);
/// How many failures make a dead letter.
const DEADLY: usize = 3;
/// How often `republish` tries a message.
const ATTEMPTS: usize = 2;
/// How often a message may be redelivered in [`LONG`] where nothing takes it away: after 1, 2, 4, 8, 16 s, and then once in each lease.
const SLOWLY: usize = 30;

/// How a message goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Rejected,
    Undecodable,
    Failing,
}

/// The final effect of a policy on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is copied or dropped, and acknowledged.
    Acknowledged,
    /// It is rejected: a dead letter at once, if the service has the extension.
    GivenUp,
    /// It fails like any other message, although it cannot succeed.
    Fails,
}

/// A policy for one kind of message.
#[derive(Clone, Debug)]
struct Policy {
    name: &'static str,
    wrong: Wrong,
    end: End,
    set: fn(WorkerBuilder) -> WorkerBuilder,
}

fn park() -> OnReject {
    OnReject::Park("attic".into())
}

fn republish(then: OnReject) -> OnFailure {
    OnFailure::Republish(Republish::new().max_attempts(2).then(then))
}

fn policies() -> Vec<Policy> {
    use {End::*, Wrong::*};
    let of = |name, wrong, end, set| Policy { name, wrong, end, set };
    vec![
        of("on_reject fail", Rejected, GivenUp, |worker| worker),
        of("on_reject park", Rejected, Acknowledged, |worker| worker.on_reject(park())),
        of("on_reject discard", Rejected, Acknowledged, |worker| worker.on_reject(OnReject::Discard)),
        of("on_undecodable reject", Undecodable, GivenUp, |worker| worker),
        of("on_undecodable reject, on_reject park", Undecodable, Acknowledged, |worker| worker.on_reject(park())),
        of("on_undecodable retry", Undecodable, Fails, |worker| worker.on_undecodable(OnUndecodable::Retry)),
        of("on_undecodable fail, on_reject park", Undecodable, GivenUp, |worker| {
            worker.on_reject(park()).on_undecodable(OnUndecodable::Own(OnReject::Fail))
        }),
        of("on_undecodable park", Undecodable, Acknowledged, |worker| {
            worker.on_undecodable(OnUndecodable::Own(park()))
        }),
        of("on_undecodable discard", Undecodable, Acknowledged, |worker| {
            worker.on_undecodable(OnUndecodable::Own(OnReject::Discard))
        }),
        of("republish, then fail", Failing, GivenUp, |worker| worker.on_failure(republish(OnReject::Fail))),
        of("republish, then park", Failing, Acknowledged, |worker| worker.on_failure(republish(park()))),
        of("republish, then discard", Failing, Acknowledged, |worker| worker.on_failure(republish(OnReject::Discard))),
        of("on_undecodable retry under republish", Undecodable, GivenUp, |worker| {
            worker.on_failure(republish(OnReject::Fail)).on_undecodable(OnUndecodable::Retry)
        }),
    ]
}

impl Policy {
    fn republishes(&self) -> bool {
        self.name.contains("republish")
    }

    /// How often the message is run at least and at most.
    fn runs(&self, dead_letters: bool, extensions: bool) -> (usize, usize) {
        match (self.end, dead_letters) {
            _ if self.republishes() => (ATTEMPTS, ATTEMPTS),
            (End::Acknowledged, _) => (1, 1),
            (End::GivenUp, true) if extensions => (1, 1),
            (End::GivenUp | End::Fails, true) => (DEADLY, DEADLY),
            (End::GivenUp | End::Fails, false) => (5, SLOWLY),
        }
    }
}

/// The result for one message that failed.
#[derive(Debug)]
struct Tale {
    runs: usize,
    dead: u64,
    left: u64,
    warned: bool,
}

/// Plays a world; `None` where the worker refuses the settings.
async fn tale(policy: &Policy, mode: QueueMode, dead_letters: bool, extensions: bool) -> Option<Tale> {
    let (log, _guard) = Log::capture();
    let queue = NewQueue::new("orders").mode(mode);
    let queue = if dead_letters { queue.dead_letters_after(DEADLY.try_into().unwrap()) } else { queue };
    let world = World::with(queue, FailureCounting::Culprit, extensions).await;
    world.client.create_queue(NewQueue::new("attic")).await.unwrap();
    world.send(0..1).await;
    let (seen, wrong) = (world.seen.clone(), policy.wrong);
    let handler = handler_fn(move || {
        seen.lock().unwrap().push(0);
        async move {
            Err(match wrong {
                Wrong::Rejected => HandlerError::reject("no such account"),
                Wrong::Undecodable => HandlerError::undecodable("not an order"),
                Wrong::Failing => HandlerError::retry("the database is away"),
            })
        }
    });
    let worker = Worker::builder(world.client.clone()).queue("orders").group("billing").handler(handler);
    let worker = (policy.set)(worker).build().unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(async move { worker.run(std::future::pending()).await });
    tokio::time::sleep(LONG).await;
    handle.stop();
    running.await.unwrap().ok()?;
    let group = world.client.find_group(&world.queue, "billing").await.unwrap();
    Some(Tale {
        runs: world.seen.lock().unwrap().len(),
        dead: group.available_dead_letters.unwrap_or(0),
        left: group.available_messages,
        warned: log.text().lines().any(|line| line.contains("WARN") && line.contains("redelivered")),
    })
}

#[tokio::test(start_paused = true)]
async fn no_policy_runs_a_rejected_message_more_often_than_it_allows() {
    let queues = [
        (QueueMode::Normal, true),
        (QueueMode::Normal, false),
        (QueueMode::Fifo, true),
        (QueueMode::Fifo, false),
        (QueueMode::KafkaHa, false),
    ];
    for (mode, dead_letters) in queues {
        for extensions in [true, false] {
            for policy in policies() {
                let world =
                    format!("{} on {mode:?}, dead letters {dead_letters}, extensions {extensions}", policy.name);
                let refused = policy.republishes()
                    && (mode != QueueMode::Normal || (!dead_letters && policy.end == End::GivenUp));
                let tale = tale(&policy, mode, dead_letters, extensions).await;
                assert_eq!(tale.is_none(), refused, "{world}: {tale:?}");
                let Some(tale) = tale else { continue };
                let (least, most) = policy.runs(dead_letters, extensions);
                assert!((least..=most).contains(&tale.runs), "{world}: {tale:?}, and not {least}-{most} runs");
                let loops = !dead_letters && policy.end != End::Acknowledged;
                let dies = dead_letters && policy.end != End::Acknowledged;
                assert_eq!((tale.dead, tale.left), (u64::from(dies), u64::from(loops)), "{world}: {tale:?}");
                assert!(tale.warned || !loops, "{world}: {tale:?}, and nobody is warned");
            }
        }
    }
}
