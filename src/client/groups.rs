//! Consumer groups (API reference 5.2).

use http::Method;

use super::{
    Client,
    call::Call,
    error::{Error, ErrorKind},
    tries::Repeat,
};
use crate::{
    limits::{self, MAX_GROUPS},
    queue::{ConsumerGroup, GroupId, QueueId},
    wire,
};

/// Options of [`Client::groups_with`].
///
/// ```
/// use dms_worker::{client::GroupsOptions, queue::NewQueue, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let group = server.group(NewQueue::new("orders"), "billing").await;
///     // Only the names: a service that counts no messages answers faster.
///     let options = GroupsOptions::new().messages(false).dead_letters(false).page(1, 50);
///     let groups = server.client().groups_with(group.queue_id(), options).await?;
///     assert_eq!(groups[0].name, "billing");
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupsOptions {
    /// Whether dead letters are counted; on by default.
    pub dead_letters: bool,
    /// Whether messages are counted; on by default. If off, the counters are zero and the call is fast.
    pub messages: bool,
    /// The number of a page, from 1, and its size; all groups by default.
    pub page: Option<(u32, u32)>,
}

impl Default for GroupsOptions {
    fn default() -> Self {
        Self { dead_letters: true, messages: true, page: None }
    }
}

impl GroupsOptions {
    /// The defaults: all groups, with their messages and dead letters counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether dead letters are counted; on by default.
    pub fn dead_letters(mut self, on: bool) -> Self {
        self.dead_letters = on;
        self
    }

    /// Whether messages are counted; on by default. If off, the counters are zero and the call is fast.
    pub fn messages(mut self, on: bool) -> Self {
        self.messages = on;
        self
    }

    /// One page of the list with `size` groups; pages count from 1. All groups by default.
    pub fn page(mut self, page: u32, size: u32) -> Self {
        self.page = Some((page, size));
        self
    }

    fn query(self) -> String {
        let (dead_letters, messages) = (self.dead_letters, self.messages);
        let mut query = format!("include_deadletter={dead_letters}&include_messages_num={messages}");
        if let Some((page, size)) = self.page {
            query.push_str(&format!("&page_size={size}&current_page={page}"));
        }
        query
    }
}

impl Client {
    /// Creates up to three groups (5.2.1) and returns their ids and names in the order of `names`.
    ///
    /// If the answer is lost, existing groups with these names count as created by this call.
    ///
    /// # Errors
    /// When a name is outside its limits or taken, or the queue has the most groups that are allowed.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn create_groups(&self, queue: &QueueId, names: &[&str]) -> Result<Vec<(GroupId, String)>, Error> {
        const NAME: &str = "create groups";
        let count = limits::in_range("number of groups", names.len(), &(1..=MAX_GROUPS), "");
        let checked = count.and_then(|()| names.iter().try_for_each(|name| limits::group_name(name)));
        checked.map_err(|error| Error::limit(NAME, error))?;
        let path = ["queues", queue.as_str(), "groups"];
        let call = Call::new(NAME, Method::POST, &path, Repeat::Allowed).body(wire::groups::encode_new(names))?;
        let created = match self.fetch(call, |answer| Ok(wire::groups::decode_created(answer)?)).await {
            Err(error) if error.is_unsure() => self.twins(queue, names).await?.ok_or(error)?,
            result => result?,
        };
        self.remember_created(created.iter().map(|(id, _)| id.as_str()));
        Ok(created)
    }

    /// The groups of a creation whose answer was lost, if it took effect.
    async fn twins(&self, queue: &QueueId, names: &[&str]) -> Result<Option<Vec<(GroupId, String)>>, Error> {
        let groups = self.groups_with(queue, GroupsOptions::new().messages(false)).await?;
        let twin = |name: &&str| groups.iter().find(|group| group.name == **name);
        Ok(names.iter().map(|name| twin(name).map(|group| (group.id.clone(), group.name.clone()))).collect())
    }

    /// The groups of a queue with all their counters (5.2.2).
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn groups(&self, queue: &QueueId) -> Result<Vec<ConsumerGroup>, Error> {
        self.groups_with(queue, GroupsOptions::default()).await
    }

    /// The groups of a queue (5.2.2), with the counters that `options` ask for.
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn groups_with(&self, queue: &QueueId, options: GroupsOptions) -> Result<Vec<ConsumerGroup>, Error> {
        let path = ["queues", queue.as_str(), "groups"];
        let call = Call::new("list groups", Method::GET, &path, Repeat::Harmless).query(options.query());
        self.fetch(call, |answer| Ok(wire::groups::decode_groups(answer)?)).await
    }

    /// Finds a group by its name or id.
    ///
    /// # Errors
    /// When there is none ([`is_not_found`](Error::is_not_found)); the text lists the existing groups.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn find_group(&self, queue: &QueueId, name_or_id: &str) -> Result<ConsumerGroup, Error> {
        if self.speaks_mqs() {
            return self.topic_group(name_or_id);
        }
        let mut groups = self.groups(queue).await?;
        let by_name = groups.iter().position(|group| group.name == name_or_id);
        match by_name.or_else(|| groups.iter().position(|group| group.id.as_str() == name_or_id)) {
            Some(index) => Ok(groups.swap_remove(index)),
            None => {
                let known = groups.into_iter().map(|group| group.name).collect();
                let missing =
                    ErrorKind::Missing { what: "consumer group", name: name_or_id.to_owned(), known, limited: false };
                Err(Error::new("find group", missing))
            }
        }
    }

    /// Deletes a group with its dead letters (5.2.3).
    ///
    /// # Errors
    /// When there is no such group, or the call fails.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn delete_group(&self, queue: &QueueId, group: &GroupId) -> Result<(), Error> {
        let path = ["queues", queue.as_str(), "groups", group.as_str()];
        self.delete(Call::new("delete group", Method::DELETE, &path, Repeat::Allowed)).await
    }
}
