//! Fault injection: failures of networks and services, by probability or by script.
//!
//! For tests of handlers and clients in any language: [`Server::faults`](crate::Server::faults) in a program, `serve --faults`
//! for a process. A server without rules checks one atomic for each request.

pub(crate) mod inject;
mod spec;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::http::operation::Operation;

/// A failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is processed after this delay.
    Latency(Duration),
    /// Nothing is done; the answer is 500 with DMS.10250002.
    ServerError,
    /// Nothing is done; the answer is flow control: 404 with DMS.10240407.
    Throttled,
    /// The request is processed, and the connection closed without its answer.
    LostAnswer,
    /// Nothing is done, and the connection ends without an answer.
    Reset,
    /// The messages of a send are stored twice, as by a sender that retries.
    Duplicate,
    /// An acknowledgement arrives too late: the answer is DMS.10542209, nothing is settled, and the lease expires.
    ExpiredLease,
    /// The second half of an acknowledgement is lost: the first half is settled, and the rest of the batch fails.
    PartialAck,
}

impl Fault {
    /// Whether the fault can happen to an operation.
    fn applies_to(self, operation: Operation) -> bool {
        match self {
            Self::Duplicate => operation == Operation::Send,
            Self::ExpiredLease | Self::PartialAck => operation.is_ack(),
            _ => true,
        }
    }
}

/// A rule: a fault, its probability, and the operation that it is limited to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FaultRule {
    /// The fault.
    pub fault: Fault,
    /// The operation; `None` for all to which the fault applies.
    pub operation: Option<Operation>,
    /// The probability for each request, from 0 to 1.
    pub probability: f64,
}

impl FaultRule {
    /// A fault for every operation that it applies to. `probability` is clamped to 0 to 1.
    pub fn new(fault: Fault, probability: f64) -> Self {
        Self { fault, operation: None, probability: probability.clamp(0.0, 1.0) }
    }

    /// Limits the fault to one operation.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }
}

/// The rules of a server at its start, and the seed of its random numbers. Equal seeds and equal requests give equal faults.
///
/// Parses from text with parts between commas: `seed=7,latency=200ms:0.1,error:0.05,lost@send:0.02`. A part is a fault,
/// optionally `=` its duration, optionally `@` an operation, and `:` its probability. The faults are `latency`, `error`,
/// `throttle`, `lost`, `reset`, `duplicate`, `expired`, `partial`.
///
/// # Examples
/// ```
/// use dms_server::{Operation, faults::{Fault, FaultPlan, FaultRule}};
///
/// let built = FaultPlan::default().seed(7).rule(FaultRule::new(Fault::LostAnswer, 0.02).on(Operation::Send));
/// assert_eq!("seed=7,lost@send:0.02".parse::<FaultPlan>()?, built);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct FaultPlan {
    /// The seed; zero by default.
    pub seed: u64,
    /// The rules, in the order in which they are tried. Latencies add up; the first other fault that hits ends the search.
    pub rules: Vec<FaultRule>,
}

impl FaultPlan {
    /// Sets the seed; zero by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Adds a rule.
    pub fn rule(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }
}

/// The faults of a running server. They can be changed at any time, and apply from the next request on.
///
/// # Examples
/// ```
/// use dms_server::{Operation, Server, ServerConfig, faults::Fault};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = Server::bind(ServerConfig::default()).await?;
///     // The next send passes, and the answer of the one after it is lost.
///     server.faults().pass(Operation::Send);
///     server.faults().next(Operation::Send, Fault::LostAnswer);
///     server.close().await;
///     Ok(())
/// }
/// ```
pub struct Faults {
    active: AtomicBool,
    state: Mutex<FaultState>,
}

struct FaultState {
    random: fastrand::Rng,
    rules: Vec<FaultRule>,
    script: HashMap<Operation, VecDeque<Option<Fault>>>,
}

/// The fault of one request, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FaultDecision {
    /// The delay before the request is processed.
    pub(crate) delay: Duration,
    /// The fault after the delay.
    pub(crate) fault: Option<Fault>,
}

impl Faults {
    pub(crate) fn new(plan: &FaultPlan) -> Self {
        let faults = Self {
            active: AtomicBool::new(false),
            state: Mutex::new(FaultState {
                random: fastrand::Rng::with_seed(plan.seed),
                rules: plan.rules.clone(),
                script: HashMap::new(),
            }),
        };
        faults.change(|_| {});
        faults
    }

    /// Whether there are rules or scheduled faults.
    #[cfg(feature = "dashboard")]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Adds a rule.
    pub fn add(&self, rule: FaultRule) {
        self.change(|state| state.rules.push(rule));
    }

    /// Schedules `fault` for the next request of `operation` that has no scheduled fault.
    pub fn next(&self, operation: Operation, fault: Fault) {
        self.change(|state| state.script.entry(operation).or_default().push_back(Some(fault)));
    }

    /// Schedules the next request of `operation` to pass, regardless of the rules.
    pub fn pass(&self, operation: Operation) {
        self.change(|state| state.script.entry(operation).or_default().push_back(None));
    }

    /// Removes all rules and all scheduled faults.
    pub fn clear(&self) {
        self.change(|state| {
            state.rules.clear();
            state.script.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut FaultState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.active.store(!(state.rules.is_empty() && state.script.is_empty()), Ordering::Release);
    }

    pub(crate) fn decide(&self, operation: Operation) -> FaultDecision {
        if !self.active.load(Ordering::Acquire) {
            return FaultDecision::default();
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).decide(operation)
    }
}

impl FaultState {
    fn decide(&mut self, operation: Operation) -> FaultDecision {
        let mut decision = FaultDecision::default();
        if let Some(scripted) = self.script.get_mut(&operation).and_then(VecDeque::pop_front) {
            match scripted {
                Some(Fault::Latency(delay)) => decision.delay = delay,
                fault => decision.fault = fault.filter(|fault| fault.applies_to(operation)),
            }
            return decision;
        }
        for rule in &self.rules {
            let meant = rule.operation.is_none_or(|only| only == operation) && rule.fault.applies_to(operation);
            // A random number is drawn for every rule that applies, hit or not, so that the rules are independent of each
            // other.
            if !meant || self.random.f64() >= rule.probability || decision.fault.is_some() {
                continue;
            }
            match rule.fault {
                Fault::Latency(delay) => decision.delay += delay,
                fault => decision.fault = Some(fault),
            }
        }
        decision
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("active", &self.active).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(plan: &FaultPlan, operation: Operation) -> Vec<FaultDecision> {
        let faults = Faults::new(plan);
        (0..100).map(|_| faults.decide(operation)).collect()
    }

    #[test]
    fn equal_seeds_give_equal_fates() {
        let plan = |seed| FaultPlan { seed, rules: vec![FaultRule::new(Fault::ServerError, 0.5)] };
        assert_eq!(fates(&plan(1), Operation::Send), fates(&plan(1), Operation::Send));
        assert_ne!(fates(&plan(1), Operation::Send), fates(&plan(2), Operation::Send));
    }

    #[test]
    fn faults_meet_only_what_they_apply_to() {
        let all = FaultPlan {
            seed: 0,
            rules: [Fault::Duplicate, Fault::ExpiredLease].map(|fault| FaultRule::new(fault, 1.0)).into(),
        };
        assert!(fates(&all, Operation::Send).iter().all(|decision| decision.fault == Some(Fault::Duplicate)));
        assert!(
            fates(&all, Operation::AckDeadLetters).iter().all(|decision| decision.fault == Some(Fault::ExpiredLease))
        );
        assert!(fates(&all, Operation::Consume).iter().all(|decision| decision.fault.is_none()));
    }

    #[test]
    fn latencies_add_up_and_a_script_goes_first() {
        let second = Fault::Latency(Duration::from_secs(1));
        let rules = vec![FaultRule::new(second, 1.0), FaultRule::new(second, 1.0), FaultRule::new(Fault::Reset, 1.0)];
        let faults = Faults::new(&FaultPlan { seed: 0, rules });
        faults.next(Operation::Ack, Fault::PartialAck);
        faults.pass(Operation::Ack);
        assert_eq!(faults.decide(Operation::Ack).fault, Some(Fault::PartialAck));
        assert_eq!(faults.decide(Operation::Ack), FaultDecision::default());
        let ruled = FaultDecision { delay: Duration::from_secs(2), fault: Some(Fault::Reset) };
        assert_eq!(faults.decide(Operation::Ack), ruled);
        faults.clear();
        assert_eq!(faults.decide(Operation::Ack), FaultDecision::default());
    }
}
