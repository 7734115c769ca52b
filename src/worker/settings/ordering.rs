//! [`Ordering`]: in which order a worker handles messages.

use std::{borrow::Cow, sync::Arc};

use crate::{contain::contained, worker::handler::delivery::Delivery};

/// In which order a worker handles messages.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Ordering {
    /// All at once, as they come; on a FIFO queue, strictly in order instead. The default.
    #[default]
    None,
    /// The messages of a batch one after the other, batches side by side. A failure keeps those behind it from starting.
    Batch,
    /// One message of a key at a time, in order, other keys side by side. A failed message stops its key until it was
    /// reported and comes again. Messages without the key share one lane.
    Key(KeyFn),
}

/// What computes the key of a message.
pub type KeyFn = Arc<dyn Fn(&Delivery) -> Option<String> + Send + Sync>;

impl Ordering {
    /// Lanes by the text of an attribute.
    pub fn by_attribute(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::Key(Arc::new(move |delivery| delivery.attributes().text(&name).map(Cow::into_owned)))
    }

    /// The lane of a message; `None` where there are no lanes.
    pub(crate) fn key(&self, delivery: &Delivery) -> Option<String> {
        match self {
            Self::Key(key) => Some(key_of(key, delivery).unwrap_or_default()),
            Self::None | Self::Batch => None,
        }
    }

    /// Whether messages are handled in an order at all.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there are lanes.
    pub(crate) fn has_keys(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    /// Whether a batch is worked off one message after the other.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self, Self::Batch)
    }
}

/// The key of a message; none where computing it panics.
fn key_of(key: &KeyFn, delivery: &Delivery) -> Option<String> {
    contained(|| key(delivery)).unwrap_or_else(|panic| {
        tracing::error!(
            queue = delivery.queue(),
            panic,
            "the key function panicked: its message shares the lane of those without a key"
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
        })
    }
}
