//! [`Operation`]: the operations of the API by name, for logs, metrics and faults.

use std::{fmt, str::FromStr};

/// An operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Creating a queue (API reference 5.1.1).
    CreateQueue,
    /// Listing queues (5.1.2).
    ListQueues,
    /// Showing a queue (5.1.3).
    ShowQueue,
    /// Deleting a queue (5.1.4).
    DeleteQueue,
    /// Creating groups (5.2.1).
    CreateGroups,
    /// Listing groups (5.2.2).
    ListGroups,
    /// Deleting a group (5.2.3).
    DeleteGroup,
    /// Sending messages (5.3.1).
    Send,
    /// Consuming messages (5.3.2).
    Consume,
    /// Acknowledging messages (5.3.3).
    Ack,
    /// Consuming dead letters (5.3.4).
    ConsumeDeadLetters,
    /// Acknowledging dead letters (5.3.5).
    AckDeadLetters,
    /// Anything about resource tags (5.4).
    Tags,
    /// Quotas (5.5.1).
    Quotas,
    /// Ending waiting consume calls: an extension.
    EndPolls,
    /// All queues and groups with their counters: an extension.
    Overview,
    /// Looking at messages without leasing them: an extension.
    Peek,
    /// Finding a message by its id: an extension.
    ShowMessage,
    /// Giving a dead letter back to its group: an extension.
    RetryMessage,
    /// Settling a message: an extension.
    DiscardMessage,
    /// The identity service.
    Identity,
    /// A path that is not of the API, or a method that the path does not have.
    Unknown,
}

/// All operations with their names.
const NAMES: [(Operation, &str); 22] = [
    (Operation::CreateQueue, "create_queue"),
    (Operation::ListQueues, "list_queues"),
    (Operation::ShowQueue, "show_queue"),
    (Operation::DeleteQueue, "delete_queue"),
    (Operation::CreateGroups, "create_groups"),
    (Operation::ListGroups, "list_groups"),
    (Operation::DeleteGroup, "delete_group"),
    (Operation::Send, "send"),
    (Operation::Consume, "consume"),
    (Operation::Ack, "ack"),
    (Operation::ConsumeDeadLetters, "consume_dead_letters"),
    (Operation::AckDeadLetters, "ack_dead_letters"),
    (Operation::Tags, "tags"),
    (Operation::Quotas, "quotas"),
    (Operation::EndPolls, "end_polls"),
    (Operation::Overview, "overview"),
    (Operation::Peek, "peek"),
    (Operation::ShowMessage, "show_message"),
    (Operation::RetryMessage, "retry_message"),
    (Operation::DiscardMessage, "discard_message"),
    (Operation::Identity, "identity"),
    (Operation::Unknown, "unknown"),
];

impl Operation {
    /// The name in metrics and fault plans.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(operation, _)| *operation == self).map_or("unknown", |(_, name)| name)
    }

    /// Whether it is an acknowledgement.
    pub(crate) fn is_ack(self) -> bool {
        matches!(self, Self::Ack | Self::AckDeadLetters)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = NAMES.iter().find(|(_, name)| *name == text).map(|(operation, _)| *operation);
        known.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
            format!("the operation {text:?} is not one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for (operation, name) in NAMES {
            assert_eq!((name.parse(), operation.as_str()), (Ok(operation), name));
        }
        assert!("sned".parse::<Operation>().is_err_and(|error| error.contains("\"sned\" is not one of create_queue")));
    }
}
