//! [`Ordering`]: in which order a worker handles messages.

use std::{borrow::Cow, sync::Arc};

use crate::{contain::contained, json, worker::handler::delivery::Delivery};

/// The order in which a worker handles messages.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Ordering {
    /// Concurrently, in no order; on a FIFO queue strictly in order instead. The default.
    #[default]
    None,
    /// The messages of a batch one after the other, several batches concurrently. After a failure, the rest of the
    /// batch is not started.
    Batch,
    /// The messages of a key one after the other, several keys concurrently. A failed message stops its key until it is
    /// reported and redelivered. Messages without a key share one.
    Key(KeyFn),
    /// As [`Key`](Self::Key), by the text of this attribute. Refused over ROMA Connect MQS, whose messages have no attributes.
    KeyAttribute(String),
    /// As [`Key`](Self::Key), by the text or number at this JSON pointer into the body, such as `/customer/id`. For services
    /// whose messages have no attributes.
    KeyPointer(String),
}

/// A function that computes the key of a message.
pub type KeyFn = Arc<dyn Fn(&Delivery) -> Option<String> + Send + Sync>;

impl Ordering {
    /// Orders messages by the text of an attribute.
    pub fn by_attribute(name: impl Into<String>) -> Self {
        Self::KeyAttribute(name.into())
    }

    /// Orders messages by the text or number at a JSON pointer into the body, such as `/customer/id`.
    pub fn by_pointer(pointer: impl Into<String>) -> Self {
        Self::KeyPointer(pointer.into())
    }

    /// The pointer of [`KeyPointer`](Self::KeyPointer).
    pub(crate) fn pointer(&self) -> Option<&String> {
        match self {
            Self::KeyPointer(pointer) => Some(pointer),
            _ => None,
        }
    }

    /// The key of a message; `None` unless messages are ordered by key.
    pub(crate) fn key(&self, delivery: &Delivery) -> Option<String> {
        match self {
            Self::KeyPointer(pointer) => {
                Some(json::text_at(delivery.body().as_str(), pointer).unwrap_or_default().into_owned())
            }
            Self::KeyAttribute(name) => {
                Some(delivery.attributes().text(name).map_or_else(String::new, Cow::into_owned))
            }
            Self::Key(key) => Some(key_of(key, delivery).unwrap_or_default()),
            Self::None | Self::Batch => None,
        }
    }

    /// Whether no order was set.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether messages are ordered by key.
    pub(crate) fn has_keys(&self) -> bool {
        matches!(self, Self::Key(_) | Self::KeyAttribute(_) | Self::KeyPointer(_))
    }

    /// Whether the messages of a batch are handled one after the other.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self, Self::Batch)
    }
}

/// The key of a message; `None` if the function panics.
fn key_of(key: &KeyFn, delivery: &Delivery) -> Option<String> {
    contained(|| key(delivery)).unwrap_or_else(|panic| {
        tracing::error!(
            queue = delivery.queue(),
            panic,
            "the key function panicked, so its message is ordered with the messages that have no key"
        );
        None
    })
}

impl std::fmt::Debug for Ordering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Batch => "Batch",
            Self::Key(_) => "Key",
            Self::KeyAttribute(_) => "KeyAttribute",
            Self::KeyPointer(_) => "KeyPointer",
        })
    }
}
