//! The events of one run, drawn from its seed: the queue, the messages, the workers' lives and the faults.

use std::{ops::RangeInclusive, time::Duration};

use dms_server::broker::embedded::FailureCounting;
use dms_worker::worker::{Batching, Collect};
use fastrand::Rng;

const SECOND: Duration = Duration::from_secs(1);

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    /// Everything speaks the API of ROMA Connect MQS.
    pub(super) mqs: bool,
    pub(super) fifo: bool,
    /// A Kafka queue: without dead letters, and nothing on it is delayed.
    pub(super) kafka: bool,
    pub(super) counting: FailureCounting,
    pub(super) max_consume_count: Option<u32>,
    /// Whether the service has the extensions of this project's server.
    pub(super) extensions: bool,
    /// By the messages' bodies.
    pub(super) messages: Vec<Plan>,
    /// Requests that send messages, in turn: when, and which.
    pub(super) sends: Vec<(Duration, std::ops::Range<usize>)>,
    pub(super) workers: Vec<WorkerPlan>,
    pub(super) weather: Weather,
    /// When the server restarts, and how long it is away.
    pub(super) restarts: Vec<(Duration, Duration)>,
    /// When everything sleeps, and for how long.
    pub(super) sleeps: Vec<(Duration, Duration)>,
    /// From then on there are no faults.
    pub(super) calm_at: Duration,
}

/// A message: how long it is invisible, how long its handler takes, and how that ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) delay: Duration,
    pub(super) takes: Duration,
    pub(super) behavior: Behavior,
}

/// How the handler's runs with a message end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    Good,
    /// This number of runs fails, then it succeeds.
    Flaky(u32, Failure),
    /// Every run fails.
    Poison(Failure),
}

/// How a run fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Error,
    Reject,
    Panic,
    /// It never ends on its own.
    Hang,
}

/// A worker's settings, and its lives one after the other.
#[derive(Clone, Debug)]
pub(super) struct WorkerPlan {
    pub(super) concurrency: usize,
    pub(super) max_messages: Option<usize>,
    /// `None` for the automatic lease.
    pub(super) ack_wait: Option<Duration>,
    pub(super) poll_wait: Duration,
    pub(super) pollers: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) ordering: Order,
    /// Several messages share a call; not with a total order.
    pub(super) batching: Option<Batching>,
    pub(super) grace: Duration,
    pub(super) lives: Vec<Life>,
    pub(super) holds: Vec<Hold>,
}

/// A time in which nothing is to be fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) at: Duration,
    pub(super) length: Duration,
    pub(super) kind: HoldKind,
}

/// A change of a worker by an operator, or by an application that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldKind {
    Pause,
    NoConcurrency,
    Brake,
}

/// The order that a worker is asked to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    None,
    Batch,
    Key,
}

/// A worker's process: when it starts, and how it ends before the run does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) starts: Duration,
    pub(super) ends: Option<(Duration, End)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process is killed: nothing leaves it any more.
    Kill,
    /// The future is dropped; the work it started continues in the background.
    Drop,
    /// It is asked to stop.
    Stop,
    /// It is asked to stop without a grace period.
    StopNow,
}

/// How likely each fault is for each request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weather {
    pub(super) refused: f64,
    pub(super) lost_request: f64,
    pub(super) lost_answer: f64,
    /// The same for acknowledgements that say that a message failed, beside all others.
    pub(super) lost_failure: f64,
    /// The same for requests that end polls.
    pub(super) lost_end: f64,
    /// An acknowledgement, or a request that ends polls, arrives twice, or long after it was given up.
    pub(super) doubled: f64,
    pub(super) late: f64,
    /// As a lost answer, noticed only when the time is up.
    pub(super) silent: f64,
    pub(super) server_error: f64,
    pub(super) throttled: f64,
    pub(super) slow: f64,
    /// The longest delay of a slow request, each way.
    pub(super) slowness: Duration,
    /// The longest delay of any other one, each way, also without faults.
    pub(super) latency: Duration,
}

impl Scenario {
    /// The scenario of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let max_consume_count = (rng.u8(..4) > 0).then(|| rng.u32(2..=5));
        let fifo = rng.u8(..3) == 0;
        let calm_at = secs(&mut rng, 30..=150);
        let poison = [0, 5, 15][rng.usize(..3)];
        let count = rng.usize(5..=60);
        let mut messages: Vec<Plan> =
            (0..count).map(|_| Plan::draw(&mut rng, poison, max_consume_count.is_some())).collect();
        let sends = draw_sends(&mut rng, count, calm_at);
        let replicas = [1, 1, 1, 2, 3][rng.usize(..5)];
        let troubled = rng.u8(..3) > 0;
        let mut workers: Vec<WorkerPlan> =
            (0..replicas).map(|_| WorkerPlan::draw(&mut rng, fifo, troubled, calm_at)).collect();
        let mut weather = draw_weather(&mut rng);
        let restarts = if rng.u8(..4) == 0 { draw_restarts(&mut rng, calm_at) } else { Vec::new() };
        let counting = if rng.bool() { FailureCounting::Batch } else { FailureCounting::Culprit };
        let sleeps = if rng.u8(..6) == 0 { draw_sleeps(&mut rng, calm_at) } else { Vec::new() };
        for worker in &mut workers {
            worker.batching = draw_batching(&mut rng, worker).filter(|_| !fifo && worker.ordering != Order::Batch);
        }
        let kafka = !fifo && max_consume_count.is_none() && rng.bool();
        if kafka {
            messages.iter_mut().for_each(|message| message.delay = Duration::ZERO);
        }
        if rng.u8(..3) == 0 {
            weather.lost_failure = rng.f64();
        }
        let mut scenario = Self {
            seed,
            mqs: false,
            fifo,
            kafka,
            counting,
            max_consume_count,
            extensions: true,
            messages,
            sends,
            workers,
            weather,
            restarts,
            sleeps,
            calm_at,
        };
        // Drawn from a separate generator, so additions leave the rest of a seed's world unchanged.
        scenario.draw_stops(&mut Rng::with_seed(seed ^ 0x5709));
        scenario
    }

    /// The same world over ROMA Connect MQS, without what it does not have; in two worlds of three, 15 % of the requests fail.
    pub(super) fn over_mqs(seed: u64) -> Self {
        let scenario = Self::of(seed);
        let mut rng = Rng::with_seed(seed ^ 0x9292);
        let mut scenario =
            Self { mqs: true, fifo: false, kafka: false, max_consume_count: None, extensions: false, ..scenario };
        for message in &mut scenario.messages {
            message.delay = Duration::ZERO;
            if let Behavior::Poison(how) = message.behavior {
                // Without dead letters it would never be settled.
                message.behavior = Behavior::Flaky(3, how);
            }
        }
        for worker in &mut scenario.workers {
            // Long enough for the slowest handler, which takes 5 s.
            if worker.timeout.is_none() && worker.batching.is_none() && rng.bool() {
                worker.ack_wait = Some(secs(&mut rng, 10..=14));
            }
        }
        // Without the header that says how long the service has waited, a late answer shortens a lease by the margin at most.
        scenario.weather.slowness = scenario.weather.slowness.min(Duration::from_millis(400));
        scenario.sleeps.clear();
        if rng.u8(..3) > 0 {
            let Weather { ref mut lost_request, ref mut lost_answer, ref mut server_error, .. } = scenario.weather;
            (*lost_request, *lost_answer, *server_error) = (0.05, 0.05, 0.05);
        }
        scenario
    }

    /// Shutdowns, pauses of fetching, and their faults.
    fn draw_stops(&mut self, rng: &mut Rng) {
        self.extensions = rng.u8(..4) > 0;
        if rng.u8(..4) == 0 {
            self.only_stops(rng);
        } else if rng.u8(..3) == 0 {
            let mut odds = || if rng.bool() { rng.f64() * 0.5 } else { 0.0 };
            (self.weather.lost_end, self.weather.doubled, self.weather.late) = (odds(), odds(), odds());
        }
        for worker in &mut self.workers {
            if rng.u8(..3) == 0 {
                worker.holds = draw_holds(rng, self.calm_at);
            }
            for (_, end) in worker.lives.iter_mut().filter_map(|life| life.ends.as_mut()) {
                if *end == End::Stop && rng.u8(..4) == 0 {
                    *end = End::StopNow;
                }
            }
        }
    }

    /// Workers are often asked to stop, and there are no other faults: then nothing is lost, and no attempt is used.
    fn only_stops(&mut self, rng: &mut Rng) {
        self.weather = Weather { latency: millis(rng, 0..=200), ..Weather::default() };
        self.restarts.clear();
        self.sleeps.clear();
        for worker in &mut self.workers {
            worker.lives = draw_stops(rng, self.calm_at);
        }
    }

    /// Whether a rejected message is a dead letter at once.
    pub(super) fn rejects(&self) -> bool {
        self.extensions && self.max_consume_count.is_some()
    }

    /// How many processes take part in all.
    pub(super) fn processes(&self) -> usize {
        self.workers.iter().map(|worker| worker.lives.len()).sum()
    }
}

impl Plan {
    /// A message; `poison` in a hundred fail.
    fn draw(rng: &mut Rng, poison: u8, mortal: bool) -> Self {
        let how = match rng.u8(..10) {
            0 => Failure::Hang,
            1 => Failure::Panic,
            2 => Failure::Reject,
            _ => Failure::Error,
        };
        let behavior = match rng.u8(..100) {
            roll if roll >= poison => Behavior::Good,
            _ if mortal && rng.bool() => Behavior::Poison(how),
            _ => Behavior::Flaky(rng.u32(1..=2), how),
        };
        let takes = match rng.u8(..20) {
            0 => millis(rng, 0..=5_000),
            1..=4 => millis(rng, 0..=500),
            _ => millis(rng, 0..=30),
        };
        let delay = if rng.u8(..10) == 0 { millis(rng, 1..=20_000) } else { Duration::ZERO };
        Self { delay, takes, behavior }
    }
}

impl WorkerPlan {
    fn draw(rng: &mut Rng, fifo: bool, troubled: bool, calm_at: Duration) -> Self {
        let ack_wait = (rng.u8(..5) > 0).then(|| secs(rng, 15..=30));
        let ordering = match rng.u8(..6) {
            0 => Order::Batch,
            1 if !fifo => Order::Key,
            _ => Order::None,
        };
        Self {
            concurrency: rng.usize(1..=24),
            max_messages: (rng.u8(..3) == 0).then(|| rng.usize(1..=10)),
            ack_wait,
            poll_wait: secs(rng, 5..=20),
            pollers: (rng.u8(..4) == 0).then(|| rng.usize(1..=4)),
            timeout: (rng.u8(..4) == 0).then(|| secs(rng, 5..=10)),
            ordering,
            batching: None,
            grace: secs(rng, 0..=25),
            lives: draw_lives(rng, troubled, calm_at),
            holds: Vec::new(),
        }
    }
}

fn draw_sends(rng: &mut Rng, count: usize, calm_at: Duration) -> Vec<(Duration, std::ops::Range<usize>)> {
    let (mut sends, mut next) = (Vec::new(), 0);
    let backlog = rng.bool();
    while next < count {
        let end = count.min(next + rng.usize(1..=10));
        let at = if backlog { Duration::ZERO } else { calm_at.mul_f64(rng.f64()) };
        sends.push((at, next..end));
        next = end;
    }
    sends.sort_by_key(|(at, _)| *at);
    sends
}

fn draw_lives(rng: &mut Rng, troubled: bool, calm_at: Duration) -> Vec<Life> {
    let mut starts = millis(rng, 0..=2_000);
    let mut lives = Vec::new();
    while troubled && lives.len() < 3 && rng.bool() {
        let at = starts + millis(rng, 10..=40_000);
        if at >= calm_at {
            break;
        }
        let end = [End::Kill, End::Drop, End::Stop][rng.usize(..3)];
        lives.push(Life { starts, ends: Some((at, end)) });
        starts = at + millis(rng, 0..=10_000);
    }
    lives.push(Life { starts, ends: None });
    lives
}

fn draw_stops(rng: &mut Rng, calm_at: Duration) -> Vec<Life> {
    let (mut lives, mut starts) = (Vec::new(), millis(rng, 0..=2_000));
    for _ in 0..rng.usize(2..=8) {
        let at = starts + millis(rng, 10..=20_000);
        if at >= calm_at {
            break;
        }
        lives.push(Life { starts, ends: Some((at, End::Stop)) });
        starts = at + millis(rng, 0..=2_000);
    }
    lives.push(Life { starts, ends: None });
    lives
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let latency = millis(rng, 0..=20);
    let strength = match rng.u8(..4) {
        0 => return Weather { latency, ..Weather::default() },
        1 => 0.2,
        _ => 0.05,
    };
    let mut odds = || if rng.bool() { rng.f64() * strength } else { 0.0 };
    let weather = Weather {
        refused: odds(),
        lost_request: odds(),
        lost_answer: odds(),
        lost_failure: 0.0,
        lost_end: 0.0,
        doubled: 0.0,
        late: 0.0,
        silent: odds(),
        server_error: odds(),
        throttled: odds(),
        slow: odds() * 4.0,
        slowness: Duration::ZERO,
        latency,
    };
    Weather { slowness: millis(rng, 10..=4_000), ..weather }
}

fn draw_restarts(rng: &mut Rng, calm_at: Duration) -> Vec<(Duration, Duration)> {
    (0..rng.usize(1..=2)).map(|_| (calm_at.mul_f64(rng.f64()), millis(rng, 0..=8_000))).collect()
}

/// Several in a row, all of them over before the faults end.
fn draw_holds(rng: &mut Rng, calm_at: Duration) -> Vec<Hold> {
    let (mut holds, mut at) = (Vec::new(), Duration::ZERO);
    for _ in 0..rng.usize(1..=3) {
        at += calm_at.mul_f64(rng.f64() / 4.0);
        let length = millis(rng, 1..=7_000);
        let kind = [HoldKind::Pause, HoldKind::NoConcurrency, HoldKind::Brake][rng.usize(..3)];
        if at + length < calm_at {
            holds.push(Hold { at, length, kind });
        }
        at += length;
    }
    holds
}

fn draw_batching(rng: &mut Rng, worker: &WorkerPlan) -> Option<Batching> {
    let (kind, count, linger) = (rng.u8(..10), rng.usize(1..=30), millis(rng, 0..=3_000));
    let count = count.min(worker.concurrency);
    match kind {
        0 => Some(Batching::Consumed),
        1 => Some(Batching::Collected(Collect::new().max_messages(count).linger(linger))),
        _ => None,
    }
}

fn draw_sleeps(rng: &mut Rng, calm_at: Duration) -> Vec<(Duration, Duration)> {
    (0..rng.usize(1..=2)).map(|_| (calm_at.mul_f64(rng.f64()), millis(rng, 100..=90_000))).collect()
}

fn secs(rng: &mut Rng, range: RangeInclusive<u32>) -> Duration {
    SECOND * rng.u32(range)
}

fn millis(rng: &mut Rng, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
