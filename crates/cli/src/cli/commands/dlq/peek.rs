//! Pages of messages that are shown without being leased: at the endpoint of this project's server, or at its admin address.

use http::Method;

use crate::cli::{
    commands::dlq::filter::Filter,
    support::{admin_client::AdminClient, context::Context, failure::Failure},
};
use dms_protocol::queue::{SourcePath, Stream};
use dms_worker::{
    client::{Client, PeekedMessage},
    internal::unwrap_parked,
};

/// Messages per answer: ten of the largest fit into the limit for answers.
const PAGE: usize = 10;

/// Who is asked.
#[derive(Debug)]
pub(crate) enum Peeker {
    Api(Client),
    Admin(AdminClient),
}

/// The pages of a group, from one sequence number on.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    peeker: &'a Peeker,
    source: SourcePath,
    from: u64,
}

impl Peeker {
    /// The admin address that was named, or the service of the client, which was called before; `None` if that cannot show
    /// messages and the admin address is not known.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub(crate) fn of(admin: Option<&str>, client: &Client, context: &Context) -> Result<Option<Self>, Failure> {
        if admin.is_none() && client.extensions().peek() {
            return Ok(Some(Self::Api(client.clone())));
        }
        Ok(AdminClient::of_service(admin, context)?.map(Self::Admin))
    }

    /// The messages from the sequence number `from` on.
    pub(crate) fn pages(&self, source: SourcePath, from: u64) -> Pages<'_> {
        Pages { peeker: self, source, from }
    }

    /// The first messages that pass, leased ones included.
    ///
    /// # Errors
    /// When the server cannot be asked, or knows no such group.
    pub(super) async fn first(
        &self,
        source: &SourcePath,
        filter: &Filter,
        max: u64,
    ) -> Result<Vec<PeekedMessage>, Failure> {
        let (mut seen, mut pages) = (Vec::new(), self.pages(source.clone(), 0));
        while (seen.len() as u64) < max
            && let Some(page) = pages.next().await?
        {
            let left = usize::try_from(max - seen.len() as u64).unwrap_or(usize::MAX);
            let page = page.into_iter().map(|message| shown(message, source.stream));
            seen.extend(page.filter(|message| filter.passes_peeked(message)).take(left));
        }
        Ok(seen)
    }

    async fn page(&self, source: &SourcePath, from: u64) -> Result<Vec<PeekedMessage>, Failure> {
        match self {
            // It has announced this.
            Self::Api(client) => Ok(client.peek(source, from, PAGE).await?.unwrap_or_default()),
            Self::Admin(admin) => {
                let path = format!("/admin/queues/{}/groups/{}/messages", source.queue, source.group);
                let stream = match source.stream {
                    Stream::Messages => "messages",
                    Stream::DeadLetters => "deadletters",
                };
                let max = PAGE.to_string();
                let parameters = [("stream", stream.into()), ("from", from.to_string().into()), ("max", max.into())];
                admin.ask(Method::GET, &path, &parameters).await
            }
        }
    }
}

/// A parked message may be a document with its history.
fn shown(mut message: PeekedMessage, stream: Stream) -> PeekedMessage {
    if stream == Stream::Messages {
        unwrap_parked(&mut message.body, &mut message.attributes, &mut message.tags);
    }
    message
}

impl Pages<'_> {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// When the server cannot be asked, or knows no such group.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<PeekedMessage>>, Failure> {
        let page = self.peeker.page(&self.source, self.from).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.from = last.sequence.saturating_add(1);
        Ok(Some(page))
    }
}
