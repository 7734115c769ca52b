//! A scripted transport: it answers from a script and records the requests.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Client, ClientBuilder,
    transport::{Transport, TransportError},
};
use http::{Request, Response};

/// The scripted outcome of one request.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// An answer of this status and body.
    Answer(u16, &'static str),
    /// An answer with a header.
    With(u16, &'static str, &'static str, &'static str),
    /// The connection is refused.
    Refuse,
    /// The connection breaks after the request was written.
    Lose,
    /// No answer comes in time.
    Hang,
}

/// Plays a script; requests beyond its end are a failure of the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    plays: VecDeque<Play>,
    requests: Vec<(Request<Bytes>, Duration)>,
}

impl Script {
    pub(crate) fn new(plays: impl IntoIterator<Item = Play>) -> Self {
        let script = Self::default();
        script.state.lock().unwrap().plays.extend(plays);
        script
    }

    /// A client whose requests go to this script.
    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder("http://dms.test", "p1").transport(Arc::new(self.clone()))
    }

    /// The requests so far, as `METHOD target body`.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<String> {
        let line = |(request, _): &(Request<Bytes>, Duration)| {
            let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let body = String::from_utf8_lossy(request.body());
            format!("{} {target} {body}", request.method()).trim_end().to_owned()
        };
        self.state.lock().unwrap().requests.iter().map(line).collect()
    }

    /// The values that a header had, one per request.
    pub(crate) fn header(&self, name: &str) -> Vec<Option<String>> {
        let value = |(request, _): &(Request<Bytes>, Duration)| {
            request.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        self.state.lock().unwrap().requests.iter().map(value).collect()
    }

    /// The time-outs, one per request.
    pub(crate) fn timeouts(&self) -> Vec<Duration> {
        self.state.lock().unwrap().requests.iter().map(|(_, timeout)| *timeout).collect()
    }
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        let play = {
            let mut state = self.state.lock().unwrap();
            state.requests.push((request, timeout));
            state.plays.pop_front()
        };
        // Answers take a moment, so that concurrent callers meet.
        tokio::task::yield_now().await;
        let answer = |status, body: &'static str| {
            Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap()
        };
        match play.expect("a request beyond the end of the script") {
            Play::Answer(status, body) => Ok(answer(status, body)),
            Play::With(status, body, name, value) => {
                let mut response = answer(status, body);
                response.headers_mut().insert(name, value.parse().unwrap());
                Ok(response)
            }
            Play::Refuse => Err(TransportError::not_sent("connection refused")),
            Play::Lose => Err(TransportError::unsure("unexpected end of file")),
            Play::Hang => {
                let never = tokio::time::timeout(timeout, std::future::pending::<()>());
                Err(TransportError::timed_out(never.await.expect_err("the future never completes")))
            }
        }
    }
}
