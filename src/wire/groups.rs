//! Consumer groups (API reference 5.2; 7.1.5-7.1.7).

use serde::{Deserialize, Serialize};

use super::{number, optional_number, text};
use crate::queue::{ConsumerGroup, GroupId};

/// The body of a call that creates groups.
pub(crate) fn encode_new(names: &[&str]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        groups: Vec<Name<'a>>,
    }
    #[derive(Serialize)]
    struct Name<'a> {
        name: &'a str,
    }
    serde_json::to_vec(&Body { groups: names.iter().map(|name| Name { name }).collect() })
}

/// Reads the answer to a creation of groups: ids and names, in the order of the request.
pub(crate) fn decode_created(body: &[u8]) -> Result<Vec<(GroupId, String)>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Body {
        groups: Vec<Created>,
    }
    #[derive(Deserialize)]
    struct Created {
        id: GroupId,
        #[serde(default, deserialize_with = "text")]
        name: String,
    }
    let body: Body = serde_json::from_slice(body)?;
    Ok(body.groups.into_iter().map(|group| (group.id, group.name)).collect())
}

#[derive(Deserialize)]
struct GroupBody {
    id: GroupId,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "number")]
    produced_messages: u64,
    #[serde(default, deserialize_with = "number")]
    consumed_messages: u64,
    #[serde(default, deserialize_with = "number")]
    available_messages: u64,
    #[serde(default, deserialize_with = "optional_number")]
    produced_deadletters: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    available_deadletters: Option<u64>,
}

/// Reads a list of groups.
pub(crate) fn decode_groups(body: &[u8]) -> Result<Vec<ConsumerGroup>, serde_json::Error> {
    #[derive(Deserialize)]
    struct List {
        groups: Vec<GroupBody>,
    }
    let list: List = serde_json::from_slice(body)?;
    let group = |body: GroupBody| {
        let mut group = ConsumerGroup::new(body.id, body.name);
        group.produced_messages = body.produced_messages;
        group.consumed_messages = body.consumed_messages;
        group.available_messages = body.available_messages;
        group.produced_dead_letters = body.produced_deadletters;
        group.available_dead_letters = body.available_deadletters;
        group
    };
    Ok(list.groups.into_iter().map(group).collect())
}
