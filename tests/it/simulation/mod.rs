//! The deterministic simulation: one seed draws the queue, the messages, the workers' lives and everything that goes wrong; the
//! run is played under the paused clock, written down, and checked against the invariants.
//!
//! `scenario` draws, `run` plays with the `network` and the `handler`s, `history` keeps what happened, `facts` puts it in order,
//! and `invariants` and `blame` judge it. `sabotage` breaks the invariants one by one, to show that the judge notices.
//!
//! `DMS_SIM_SEEDS=2000` plays this number of seeds, `DMS_SIM_FIRST=5000` begins elsewhere, and `DMS_SIM_SEED=17` plays one and prints its
//! whole history.

mod blame;
mod facts;
mod handler;
mod history;
mod invariants;
mod network;
mod run;
mod sabotage;
mod scenario;

use std::{
    collections::BTreeMap,
    fmt::Write,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use self::{
    invariants::{Rule, Violation, check},
    run::{HandlerOutcome, play},
    sabotage::Sabotage,
    scenario::Scenario,
};

/// How many seeds a usual test run plays.
const SEEDS: u64 = 300;
/// The same over ROMA Connect MQS.
const MQS_SEEDS: u64 = 100;
/// The search ends after this number of failures.
const ENOUGH: usize = 8;

/// Design invariants 1-8, in many worlds.
#[test]
fn the_invariants_hold_whatever_goes_wrong() {
    if let Some(seed) = number("DMS_SIM_SEED") {
        let outcome = play(&Scenario::of(seed), None);
        println!("{:#?}\n{}", outcome.scenario, tell(&outcome, None));
        let found = check(&outcome);
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        return;
    }
    report(&search(seeds(SEEDS), |seed| judged(&Scenario::of(seed), |_| true)));
}

/// The invariants that need neither places nor dead letters, in the same worlds over ROMA Connect MQS.
#[test]
fn the_invariants_hold_over_mqs() {
    use Rule::{Announced, Deadline, Handled, NothingInvented, NothingLost, Once, Prefix, Quiet, Room};
    let rules = [Handled, NothingLost, NothingInvented, Prefix, Once, Deadline, Room, Announced, Quiet];
    let seeds = number("DMS_SIM_SEED").map_or_else(|| seeds(MQS_SEEDS), |seed| seed..seed + 1);
    report(&search(seeds, |seed| judged(&Scenario::over_mqs(seed), |rule| rules.contains(&rule))));
}

/// The seeds to play.
fn seeds(usual: u64) -> Range<u64> {
    let first = number("DMS_SIM_FIRST").unwrap_or(0);
    first..first + number("DMS_SIM_SEEDS").unwrap_or(usual)
}

/// Plays a scenario. The report of its violations, if there are any of the rules that apply.
fn judged(scenario: &Scenario, applies: impl Fn(Rule) -> bool) -> Option<String> {
    let outcome = play(scenario, None);
    let mut found = check(&outcome);
    found.retain(|violation| applies(violation.rule));
    (!found.is_empty()).then(|| complaint(&outcome, &found))
}

/// Panics with the report of the first seed that failed.
#[track_caller]
fn report(failures: &BTreeMap<u64, String>) {
    if let Some((seed, report)) = failures.first_key_value() {
        let others: Vec<_> = failures.keys().filter(|other| *other != seed).collect();
        panic!("{report}\nother seeds that failed: {others:?}");
    }
}

/// Plays seeds on all cores, until a few have failed; returns their violations.
fn search(seeds: Range<u64>, violations: impl Fn(u64) -> Option<String> + Sync) -> BTreeMap<u64, String> {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().unwrap().len() < ENOUGH {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Some(report) = violations(seed) {
                        failures.lock().unwrap().insert(seed, report);
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}: a whole number is needed")))
}

/// The violations, the history of the messages concerned, and how to replay it.
fn complaint(outcome: &HandlerOutcome, found: &[Violation]) -> String {
    let mut text = String::new();
    for Violation { rule, text: what, messages } in found {
        let _ = writeln!(text, "{rule:?}: {what} {messages:?}");
    }
    let concerned: Vec<u64> = found.iter().flat_map(|violation| violation.messages.clone()).collect();
    let seed = outcome.scenario.seed;
    let _ = write!(text, "{}", tell(outcome, Some(&concerned)));
    let _ = write!(text, "\nseed {seed} again: DMS_SIM_SEED={seed} cargo test --test it simulation -- --nocapture");
    text
}

/// The history, or the part that is about some messages.
fn tell(outcome: &HandlerOutcome, about: Option<&[u64]>) -> String {
    let mut text = String::new();
    for (number, (at, entry)) in outcome.entries.iter().enumerate() {
        let messages = entry.messages(&outcome.entries[..number]);
        let shown = match (about, messages) {
            (Some(about), Some(messages)) => messages.iter().any(|message| about.contains(message)),
            (None, _) | (_, None) => true,
        };
        if shown {
            let _ = writeln!(text, "{:>10.3} s  {entry}", at.as_secs_f64());
        }
    }
    let HandlerOutcome { waiting, dead, consumed, .. } = outcome;
    let _ = write!(text, "in the end: {consumed} settled, waiting {waiting:?}, dead letters {dead:?}");
    text
}

/// A seed gives one history, so failures can be replayed.
#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in 0..10 {
        let tale = || tell(&play(&Scenario::of(seed), None), None);
        assert_eq!(tale(), tale(), "seed {seed}");
    }
}

/// Each mistake is found, in one of a few worlds, as a violation of the rule that it breaks.
#[track_caller]
fn is_found(sabotage: Sabotage, rule: Rule) {
    let found = (0..100).find(|seed| {
        let found = check(&play(&Scenario::of(*seed), Some(sabotage)));
        found.iter().any(|violation| violation.rule == rule)
    });
    assert!(found.is_some(), "{sabotage:?} went unnoticed as a breach of {rule:?}");
}

#[test]
fn a_failure_acknowledged_as_a_success_is_found() {
    is_found(Sabotage::FailureAsSuccess, Rule::Handled);
}

#[test]
fn an_acknowledgement_that_is_no_prefix_is_found() {
    is_found(Sabotage::FirstLineMissing, Rule::Prefix);
    is_found(Sabotage::Reversed, Rule::Prefix);
}

#[test]
fn a_second_acknowledgement_is_found() {
    is_found(Sabotage::AckTwice, Rule::Once);
}

#[test]
fn a_handler_that_outlives_its_lease_is_found() {
    is_found(Sabotage::ShortLease, Rule::Deadline);
}

#[test]
fn a_lost_message_is_found() {
    is_found(Sabotage::SendSwallowed, Rule::NothingLost);
}

#[test]
fn a_broken_order_is_found() {
    is_found(Sabotage::Swapped, Rule::Order);
}

#[test]
fn work_done_twice_is_found() {
    is_found(Sabotage::Restamped, Rule::Memory);
}

#[test]
fn damage_to_neighbours_is_found() {
    is_found(Sabotage::WidePolls, Rule::NoCollateral);
}

#[test]
fn an_attempt_spent_by_a_stop_is_found() {
    is_found(Sabotage::ReleaseAsFail, Rule::Blame);
}

#[test]
fn a_stop_that_waits_for_polls_is_found() {
    is_found(Sabotage::EndSwallowed, Rule::Quiet);
}

#[test]
fn an_extension_that_was_never_announced_is_found() {
    is_found(Sabotage::Boasting, Rule::Announced);
}
