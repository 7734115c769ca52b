//! Wires that each break one invariant on purpose, as a worker or a server with that mistake would.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use dms_worker::transport::TransportError;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use serde_json::Value;

use super::{history::Process, network::Network};

type Answered = Result<Response<Bytes>, TransportError>;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A failure is acknowledged as a success.
    FailureAsSuccess,
    /// The acknowledgement leaves out the first message.
    FirstLineMissing,
    /// The acknowledgement is in reverse order.
    Reversed,
    /// The acknowledgement is sent twice although it was answered.
    AckTwice,
    /// The server leases for half of what the worker asked for.
    ShortLease,
    /// A send is answered without being done.
    SendSwallowed,
    /// The first two messages of a batch are swapped.
    Swapped,
    /// A redelivered message cannot be identified: each delivery reports another time of entry.
    Restamped,
    /// A poll for one message asks for ten.
    WidePolls,
    /// Released messages are reported as failed.
    ReleaseAsFail,
    /// A request that ends polls is answered without being done.
    EndSwallowed,
    /// The service claims extensions that it does not have.
    Boasting,
}

impl Sabotage {
    /// Carries a request of a process, with the mistake.
    pub(super) async fn spoil(
        self,
        network: &Arc<Network>,
        process: Option<Process>,
        mut request: Request<Bytes>,
    ) -> Answered {
        let carry = |request| network.carry(process, request);
        let path = request.uri().path().to_owned();
        let consume = path.contains("/groups/") && path.ends_with("/messages");
        let send = !consume && path.ends_with("/messages");
        match self {
            Self::FailureAsSuccess | Self::FirstLineMissing | Self::Reversed | Self::ReleaseAsFail
                if path.ends_with("/ack") =>
            {
                let body = edit(request.body(), |ack| self.edit_ack(ack["message"].as_array_mut().unwrap()));
                *request.body_mut() = body;
                carry(request).await
            }
            Self::AckTwice if path.ends_with("/ack") => {
                let answered = carry(request.clone()).await;
                if answered.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                    drop(carry(request).await);
                }
                answered
            }
            Self::EndSwallowed if path.ends_with("/polls/end") => {
                Ok(Response::builder().body(r#"{"ended":0}"#.into()).unwrap())
            }
            Self::Boasting => {
                let mut answer = carry(request).await?;
                let all =
                    HeaderValue::from_static("end-poll, release, reject, reason, overview, peek, message-id, messages");
                answer.headers_mut().insert("x-dms-extensions", all);
                Ok(answer)
            }
            Self::ShortLease if consume => carry(requery(request, "ack_wait", "15")).await,
            Self::WidePolls if consume => carry(requery(request, "max_msgs", "10")).await,
            Self::SendSwallowed if send => {
                let sent = serde_json::from_slice::<Value>(request.body()).unwrap();
                let one = r#"{"error":null,"error_code":null,"state":0}"#;
                let all = vec![one; sent["messages"].as_array().unwrap().len()].join(",");
                let body = format!(r#"{{"messages":[{all}]}}"#);
                Ok(Response::builder().status(StatusCode::CREATED).body(body.into()).unwrap())
            }
            Self::Swapped | Self::Restamped if consume => {
                let mut answer = carry(request).await?;
                if answer.status().is_success() {
                    self.edit_batch(&mut answer);
                }
                Ok(answer)
            }
            _ => carry(request).await,
        }
    }

    fn edit_ack(self, lines: &mut Vec<Value>) {
        match self {
            Self::FailureAsSuccess => lines.iter_mut().for_each(|line| line["status"] = "success".into()),
            Self::FirstLineMissing if lines.len() > 1 => drop(lines.remove(0)),
            Self::Reversed => lines.reverse(),
            Self::ReleaseAsFail => {
                lines
                    .iter_mut()
                    .filter(|line| line["status"] == "release")
                    .for_each(|line| line["status"] = "fail".into());
            }
            _ => {}
        }
    }

    /// Changes the messages of a consume answer, and their places beside them.
    fn edit_batch(self, answer: &mut Response<Bytes>) {
        let header = answer.headers().get("x-dms-deliveries").map_or("", |value| value.to_str().unwrap());
        let mut places: Vec<String> = header.split(',').map(str::to_owned).collect();
        let body = edit(answer.body(), |batch| {
            let batch = batch.as_array_mut().unwrap();
            match self {
                Self::Swapped if batch.len() > 1 => {
                    batch.swap(0, 1);
                    places.swap(0, 1);
                }
                Self::Restamped if !batch.is_empty() => places.iter_mut().for_each(restamp),
                _ => {}
            }
        });
        *answer.body_mut() = body;
        answer.headers_mut().insert("x-dms-deliveries", places.join(",").parse().unwrap());
    }
}

/// Puts another time in the third part of an entry of `x-dms-deliveries`.
fn restamp(place: &mut String) {
    static TIMES: AtomicU64 = AtomicU64::new(1);
    let mut parts: Vec<String> = place.split('.').map(str::to_owned).collect();
    parts[2] = TIMES.fetch_add(1, Relaxed).to_string();
    *place = parts.join(".");
}

fn edit(body: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    let mut value = serde_json::from_slice(body).unwrap();
    change(&mut value);
    value.to_string().into()
}

/// The request with another value of a parameter.
fn requery(mut request: Request<Bytes>, name: &str, value: &str) -> Request<Bytes> {
    let uri = request.uri().to_string();
    let (path, query) = uri.split_once('?').unwrap();
    let replace = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if key == name => format!("{name}={value}"),
        _ => pair.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(replace).collect();
    *request.uri_mut() = format!("{path}?{}", query.join("&")).parse::<Uri>().unwrap();
    request
}
