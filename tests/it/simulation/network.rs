//! The network between the processes and the server: it loses, delays and refuses requests at random, and records all of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use dms_worker::transport::{InProcess, Transport, TransportError};
use fastrand::Rng;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    history::{Answer, Entry, History, Item, Line, Process, Says},
    sabotage::Sabotage,
    scenario::Weather,
};

/// How long a late request may be in transit: longer than any lease.
const LATE: Duration = Duration::from_secs(60);

type Answered = Result<Response<Bytes>, TransportError>;

/// The state that all connections share.
pub(super) struct Network {
    server: InProcess,
    history: Arc<History>,
    weather: Weather,
    calm: AtomicBool,
    down: watch::Sender<bool>,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    /// Which message of which batch a token stands for.
    places: HashMap<String, (usize, usize)>,
}

/// The network's treatment of one request.
#[derive(Clone, Copy, Debug)]
struct Trip {
    there: Duration,
    back: Duration,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Refused,
    LostRequest,
    LostAnswer,
    Silent,
    ServerError,
    Throttled,
    /// It arrives twice.
    Doubled,
    /// It arrives after its sender has given up.
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Consume,
    Ack,
    EndPolls,
    Other,
}

impl Kind {
    fn of(request: &Request<Bytes>) -> Self {
        let path = request.uri().path();
        match *request.method() {
            Method::GET if path.contains("/group") && path.ends_with("/messages") => Self::Consume,
            Method::POST if path.ends_with("/ack") => Self::Ack,
            Method::POST if path.contains("/group/") && path.ends_with("/messages") => Self::Ack,
            Method::POST if path.ends_with("/polls/end") => Self::EndPolls,
            _ => Self::Other,
        }
    }
}

impl Network {
    pub(super) fn new(server: InProcess, history: Arc<History>, weather: Weather, rng: Rng) -> Arc<Self> {
        let state = Mutex::new(State { rng, places: HashMap::new() });
        Arc::new(Self {
            server,
            history,
            weather,
            calm: AtomicBool::new(false),
            down: watch::Sender::new(false),
            state,
        })
    }

    /// From now on there is only the usual latency.
    pub(super) fn calm(&self) {
        self.calm.store(true, Relaxed);
    }

    /// Cuts all connections, or lets them through again.
    pub(super) fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of a request; `fails`: it is an acknowledgement that reports a failed message.
    fn trip(&self, kind: Kind, fails: bool) -> Trip {
        let rng = &mut self.lock().rng;
        let mut delay = |most: Duration| most.mul_f64(rng.f64());
        let trip = Trip { there: delay(self.weather.latency), back: delay(self.weather.latency), trouble: None };
        if self.calm.load(Relaxed) {
            return trip;
        }
        let trouble = self.trouble(rng, kind, fails);
        if trouble == Some(Trouble::Late) {
            return Trip { there: LATE.mul_f64(rng.f64()), trouble, ..trip };
        }
        if rng.f64() >= self.weather.slow {
            return Trip { trouble, ..trip };
        }
        let mut delay = |most: Duration| most.mul_f64(rng.f64());
        Trip { there: delay(self.weather.slowness), back: delay(self.weather.slowness), trouble }
    }

    fn trouble(&self, rng: &mut Rng, kind: Kind, fails: bool) -> Option<Trouble> {
        let Weather { refused, lost_request, lost_answer, silent, server_error, throttled, .. } = self.weather;
        let usual = [
            (refused, Trouble::Refused),
            (lost_request, Trouble::LostRequest),
            (lost_answer, Trouble::LostAnswer),
            (silent, Trouble::Silent),
            (server_error, Trouble::ServerError),
            (throttled, Trouble::Throttled),
        ];
        let Weather { lost_failure, lost_end, doubled, late, .. } = self.weather;
        let (acks, ends) = (kind == Kind::Ack, kind == Kind::EndPolls);
        let special = [
            (fails, lost_failure, Trouble::LostAnswer),
            (ends, lost_end, Trouble::LostRequest),
            (ends, lost_end, Trouble::LostAnswer),
            (acks || ends, doubled, Trouble::Doubled),
            (acks || ends, late, Trouble::Late),
        ];
        let mut falls = |odds: f64| rng.f64() < odds;
        let usual = usual.into_iter().find_map(|(odds, trouble)| falls(odds).then_some(trouble));
        // Dice are not thrown for what cannot be: that leaves the worlds without it as they are.
        let special = special.into_iter().filter(|(concerned, odds, _)| *concerned && *odds > 0.0);
        let special = special.fold(None, |found, (_, odds, trouble)| found.or(falls(odds).then_some(trouble)));
        usual.or(special)
    }

    /// Carries a request of a process, and records the important facts.
    pub(super) async fn carry(self: &Arc<Self>, process: Option<Process>, request: Request<Bytes>) -> Answered {
        let kind = Kind::of(&request);
        let (mut ack, mut fails) = (None, false);
        if let (Kind::Ack, Some(process)) = (kind, process) {
            let lines = self.lines(request.body());
            fails = lines.iter().any(|line| !line.says.settles());
            ack = Some(self.history.add(|ack| Entry::AckSent { ack, process, lines }));
        }
        if let (Kind::EndPolls, Some(process)) = (kind, process) {
            self.history.note(Entry::EndsPolls { process });
        }
        let trip = self.trip(kind, fails);
        let answered = self.travel(process, kind, ack, request, trip).await;
        if let Some(ack) = ack {
            self.history.note(Entry::AckHeard { ack, answer: answer_of(&answered) });
        }
        answered
    }

    async fn travel(
        self: &Arc<Self>,
        process: Option<Process>,
        kind: Kind,
        ack: Option<usize>,
        request: Request<Bytes>,
        Trip { there, back, trouble }: Trip,
    ) -> Answered {
        match trouble {
            Some(Trouble::Refused) => return Err(TransportError::not_sent("refused by the simulation")),
            Some(Trouble::LostRequest) => return Err(TransportError::unsure("request lost by the simulation")),
            _ if *self.down.borrow() => return Err(TransportError::not_sent("the server is down")),
            _ => {}
        }
        let network = self.clone();
        let served = async move {
            pause(there).await;
            tokio::select! {
                biased;
                () = network.went_down() => Err(TransportError::unsure("the server went down")),
                answered = network.serve(process, kind, ack, request, trouble) => answered,
            }
        };
        let answered = match kind {
            // A consume call whose caller has gone hands nothing out.
            Kind::Consume => served.await,
            // Anything else that is on its way arrives, whether its caller waits or not.
            Kind::Ack | Kind::EndPolls | Kind::Other => tokio::spawn(served).await.unwrap(),
        };
        let mut under_way = answered.as_ref().ok().and_then(|answer| UnderWay::of(&self.history, answer));
        let mut ends = |how: fn(usize) -> Entry| under_way.iter_mut().for_each(|under_way| under_way.ends = how);
        match trouble {
            Some(Trouble::LostAnswer) => {
                ends(|batch| Entry::Lost { batch });
                return Err(TransportError::unsure("answer lost by the simulation"));
            }
            Some(Trouble::Silent) => {
                ends(|batch| Entry::Lost { batch });
                std::future::pending().await
            }
            _ => {
                pause(back).await;
                ends(|batch| Entry::Delivered { batch });
            }
        }
        answered
    }

    async fn went_down(&self) {
        // The sender lives as long as `self`.
        let _ = self.down.subscribe().wait_for(|down| *down).await;
    }

    /// The request has arrived.
    async fn serve(
        &self,
        process: Option<Process>,
        kind: Kind,
        ack: Option<usize>,
        request: Request<Bytes>,
        trouble: Option<Trouble>,
    ) -> Answered {
        match trouble {
            Some(Trouble::ServerError) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "DMS.10250002")),
            Some(Trouble::Throttled) => return Ok(refusal(StatusCode::NOT_FOUND, "DMS.10240407")),
            _ => {}
        }
        let lease = lease_of(&request);
        let again = (trouble == Some(Trouble::Doubled)).then(|| request.clone());
        let mut answered = self.server.send(request, Duration::from_secs(3600)).await;
        if let Some(ack) = ack {
            self.history.note(Entry::AckJudged { ack, answer: answer_of(&answered) });
        }
        if let Some(again) = again {
            let second = self.server.send(again, Duration::from_secs(3600)).await;
            if let Some(ack) = ack {
                self.history.note(Entry::AckJudged { ack, answer: answer_of(&second) });
            }
            // Either of two answers may be passed on.
            if self.lock().rng.bool() {
                answered = second;
            }
        }
        if let (Kind::Consume, Some(process), Ok(answer)) = (kind, process, &mut answered)
            && let Some(batch) = self.note_batch(process, answer, lease)
        {
            answer.extensions_mut().insert(Batch(batch));
        }
        answered
    }

    fn note_batch(&self, process: Process, answer: &Response<Bytes>, lease: Duration) -> Option<usize> {
        let received = received(answer);
        if received.is_empty() {
            return None;
        }
        let items = received.iter().map(|(item, _)| *item).collect();
        let batch = self.history.add(|batch| Entry::Served { batch, process, items, lease });
        let tokens = received.into_iter().map(|(_, token)| token).enumerate();
        self.lock().places.extend(tokens.map(|(position, token)| (token, (batch, position))));
        Some(batch)
    }

    fn lines(&self, body: &[u8]) -> Vec<Line> {
        let acks: Acks = serde_json::from_slice(body).unwrap();
        let places = &self.lock().places;
        let line = |ack: &AckLine| Line { place: places.get(&ack.handler).copied(), says: Says::of(&ack.status) };
        acks.message.iter().map(line).collect()
    }
}

/// Marks the answer that carries a batch with its number.
#[derive(Clone, Copy, Debug)]
struct Batch(usize);

/// An answer with a batch in transit: records how that ends.
struct UnderWay {
    history: Arc<History>,
    batch: usize,
    ends: fn(usize) -> Entry,
}

impl UnderWay {
    fn of(history: &Arc<History>, answer: &Response<Bytes>) -> Option<Self> {
        let Batch(batch) = *answer.extensions().get()?;
        Some(Self { history: history.clone(), batch, ends: |batch| Entry::Abandoned { batch } })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.history.note((self.ends)(self.batch));
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn lease_of(request: &Request<Bytes>) -> Duration {
    let query = request.uri().query().unwrap_or_default();
    let wait = query.split('&').find_map(|pair| pair.strip_prefix("ack_wait="));
    Duration::from_secs(wait.map_or(0, |seconds| seconds.parse().unwrap()))
}

fn refusal(status: StatusCode, code: &str) -> Response<Bytes> {
    let body = format!(r#"{{"error_code":"{code}","error_msg":"by the simulation"}}"#);
    Response::builder().status(status).body(body.into()).unwrap()
}

fn answer_of(answered: &Answered) -> Answer {
    #[derive(Deserialize)]
    struct Counts {
        success: usize,
        fail: usize,
    }
    match answered {
        Ok(answer) if answer.status().is_success() => match serde_json::from_slice(answer.body()) {
            Ok(Counts { success, fail }) => Answer::Settled { success, fail },
            Err(_) => Answer::Again,
        },
        Ok(answer) if answer.status() == StatusCode::BAD_REQUEST => Answer::Refused(answer.status().as_u16()),
        Ok(_) | Err(_) => Answer::Again,
    }
}

#[derive(Deserialize)]
struct Acks {
    /// In the dialect of MQS, `messages`.
    #[serde(alias = "messages")]
    message: Vec<AckLine>,
}

#[derive(Deserialize)]
struct AckLine {
    handler: String,
    status: String,
}

/// The messages of a consume answer with their tokens.
fn received(answer: &Response<Bytes>) -> Vec<(Item, String)> {
    #[derive(Deserialize)]
    struct One {
        message: Inner,
        handler: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Inner {
        Dms { body: u64 },
        Mqs { content: String },
    }
    if !answer.status().is_success() {
        return Vec::new();
    }
    let messages: Vec<One> = serde_json::from_slice(answer.body()).unwrap();
    let header = answer.headers().get("x-dms-deliveries").map_or("", |value| value.to_str().unwrap());
    let mut deliveries = header.split(',').filter_map(place_and_attempt);
    let one = |One { message, handler }| {
        let item = match message {
            Inner::Dms { body } => {
                let (sequence, attempt) = deliveries.next()?;
                Item { message: body, sequence: sequence.parse().unwrap(), attempt: attempt.parse().unwrap() }
            }
            // MQS tells neither the place nor the attempt.
            Inner::Mqs { content } => {
                let message = String::from_utf8(STANDARD.decode(content).unwrap()).unwrap().parse().unwrap();
                Item { message, sequence: message, attempt: 1 }
            }
        };
        Some((item, handler))
    };
    messages.into_iter().filter_map(one).collect()
}

/// The first two parts of an entry of `x-dms-deliveries`.
fn place_and_attempt(entry: &str) -> Option<(&str, &str)> {
    let mut parts = entry.split('.');
    parts.next().zip(parts.next())
}

/// One process's way to the server.
pub(super) struct Wire {
    pub(super) network: Arc<Network>,
    /// `None` for producers and for the test itself.
    pub(super) process: Option<Process>,
    /// The process was killed: it sends and receives nothing.
    pub(super) dead: CancellationToken,
    /// The deliberate mistake of the wire.
    pub(super) sabotage: Option<Sabotage>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("process", &self.process).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Answered {
        let carried = async {
            match self.sabotage {
                None => self.network.carry(self.process, request).await,
                Some(sabotage) => sabotage.spoil(&self.network, self.process, request).await,
            }
        };
        tokio::select! {
            biased;
            () = self.dead.cancelled() => std::future::pending().await,
            answered = tokio::time::timeout(timeout, carried) => answered.unwrap_or_else(|late| Err(TransportError::timed_out(late))),
        }
    }
}
