//! The client: a pooled connection, a request, and the JSON that is needed to acknowledge.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Uri, header::CONTENT_TYPE};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{
    Error,
    harness::{Progress, Receiver, Sender, System, receive_with},
    raw::Incoming,
};

type Http = Client<HttpConnector, Full<Bytes>>;

pub struct Bound {
    http: Http,
    url: String,
}

impl Bound {
    pub fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { http: Client::builder(TokioExecutor::new()).build(connector), url: url.to_owned() }
    }

    fn connection(&self) -> Result<Connection, Error> {
        let at = |path| format!("{}/{path}", self.url).parse();
        Ok(Connection { http: self.http.clone(), messages: at("messages")?, ack: at("ack")? })
    }
}

#[async_trait]
impl System for Bound {
    async fn prepare(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(Box::new(self.connection()?))
    }

    async fn consume(&self, connections: usize, progress: Arc<Progress>) -> Result<(), Error> {
        let mut receivers: Vec<Box<dyn Receiver>> = Vec::with_capacity(connections);
        for _ in 0..connections {
            receivers.push(Box::new(self.connection()?));
        }
        receive_with(receivers, &progress).await
    }

    async fn drop_queue(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct Connection {
    http: Http,
    messages: Uri,
    ack: Uri,
}

impl Connection {
    async fn call(&self, method: Method, uri: &Uri, body: Vec<u8>) -> Result<Bytes, Error> {
        let request = Request::builder().method(method).uri(uri.clone()).header(CONTENT_TYPE, "application/json");
        let answer = self.http.request(request.body(Full::new(body.into()))?).await?;
        if !answer.status().is_success() {
            return Err(format!("the server answered {}", answer.status()).into());
        }
        Ok(answer.into_body().collect().await?.to_bytes())
    }
}

#[async_trait]
impl Sender for Connection {
    async fn send(&mut self, bodies: &[Bytes]) -> Result<(), Error> {
        let mut json = Vec::with_capacity(bodies.iter().map(|body| body.len() + 16).sum());
        json.extend_from_slice(br#"{"messages":"#);
        for (index, body) in bodies.iter().enumerate() {
            json.extend_from_slice(if index == 0 { br#"[{"body":"# } else { br#",{"body":"# });
            json.extend_from_slice(body);
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
        self.call(Method::POST, &self.messages, json).await?;
        Ok(())
    }
}

#[async_trait]
impl Receiver for Connection {
    async fn cycle(&mut self, progress: &Progress) -> Result<u64, Error> {
        let text = self.call(Method::GET, &self.messages, Vec::new()).await?;
        let incoming: Vec<Incoming<'_>> = serde_json::from_slice(&text)?;
        let mut json = Vec::with_capacity(incoming.len() * 80);
        json.extend_from_slice(br#"{"message":"#);
        for (index, one) in incoming.iter().enumerate() {
            progress.saw(one.body().as_bytes());
            json.extend_from_slice(if index == 0 { br#"[{"handler":""# } else { br#",{"handler":""# });
            json.extend_from_slice(one.handler.as_bytes());
            json.extend_from_slice(br#"","status":"success"}"#);
        }
        json.extend_from_slice(b"]}");
        self.call(Method::POST, &self.ack, json).await?;
        Ok(incoming.len() as u64)
    }
}
