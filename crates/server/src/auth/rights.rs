//! [`Rights`]: the operations that a key or a user may use, by patterns of queue names.

use std::fmt;

/// A kind of operation on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Sending messages to the queue.
    Send,
    /// Consuming and acknowledging its messages and dead letters.
    Consume,
    /// Creating and deleting the queue and its groups, and changing its tags.
    Manage,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send => "send",
            Self::Consume => "consume",
            Self::Manage => "manage",
        })
    }
}

/// The rights of a key or a user: for each kind of operation, patterns of queue names, in which `*` matches any text. The default
/// allows everything.
///
/// A request without the right gets 403 DMS.10240311. Queues on which a caller has no right at all are not listed.
///
/// # Examples
/// ```
/// use dms_server::Rights;
///
/// let worker = Rights::none().consume(vec!["orders".to_owned()]).send(vec!["orders-failed-*".to_owned()]);
/// assert!(worker.manage.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rights {
    /// Queues that messages may be sent to.
    pub send: Vec<String>,
    /// Queues that may be consumed from.
    pub consume: Vec<String>,
    /// Queues that may be created, deleted and changed, with their groups and tags.
    pub manage: Vec<String>,
}

impl Default for Rights {
    fn default() -> Self {
        let all = || vec!["*".to_owned()];
        Self { send: all(), consume: all(), manage: all() }
    }
}

impl Rights {
    /// No rights at all.
    pub fn none() -> Self {
        Self { send: Vec::new(), consume: Vec::new(), manage: Vec::new() }
    }

    /// Sets the patterns of the queues that messages may be sent to; `*` by default.
    pub fn send(mut self, patterns: Vec<String>) -> Self {
        self.send = patterns;
        self
    }

    /// Sets the patterns of the queues that may be consumed from, including their dead letters; `*` by default.
    pub fn consume(mut self, patterns: Vec<String>) -> Self {
        self.consume = patterns;
        self
    }

    /// Sets the patterns of the queues that may be created, deleted and changed, with their groups and tags; `*` by default.
    pub fn manage(mut self, patterns: Vec<String>) -> Self {
        self.manage = patterns;
        self
    }

    /// Whether they allow everything.
    pub(crate) fn are_all(&self) -> bool {
        [&self.send, &self.consume, &self.manage].iter().all(|patterns| patterns.iter().any(|pattern| pattern == "*"))
    }

    /// Whether they allow this on the queue of this name.
    pub(crate) fn allow(&self, right: Right, queue: &str) -> bool {
        self.patterns(right).iter().any(|pattern| matches(pattern.as_bytes(), queue.as_bytes()))
    }

    /// Whether they allow this on at least one queue.
    pub(crate) fn allow_somewhere(&self, right: Right) -> bool {
        !self.patterns(right).is_empty()
    }

    /// Whether the queue of this name is visible: any right on it suffices.
    pub(crate) fn show(&self, queue: &str) -> bool {
        [Right::Send, Right::Consume, Right::Manage].into_iter().any(|right| self.allow(right, queue))
    }

    fn patterns(&self, right: Right) -> &[String] {
        match right {
            Right::Send => &self.send,
            Right::Consume => &self.consume,
            Right::Manage => &self.manage,
        }
    }
}

/// Whether `text` matches `pattern`, in which `*` matches any text. Takes at most time proportional to the product of the
/// lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // The position of the last `*`, and the end of the text that it currently matches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(from) {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(wanted), _) if wanted == byte => (at, from) = (at + 1, from + 1),
            (_, Some((place, end))) => {
                star = Some((place, end + 1));
                (at, from) = (place + 1, end + 1);
            }
            (_, None) => return false,
        }
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_part() {
        for (pattern, text) in [
            ("orders", "orders"),
            ("*", "orders"),
            ("orders*", "orders"),
            ("orders-*", "orders-eu"),
            ("*-dead", "orders-dead"),
            ("a*b*c", "aXbYbZc"),
            ("**a", "ba"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("orders", "orders-eu"),
            ("orders", "Orders"),
            ("orders-*", "orders"),
            ("*-dead", "dead"),
            ("a*b", "abc"),
            ("", "a"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn the_default_is_everything() {
        assert!(Rights::default().are_all() && Rights::default().show("q"));
        let sender = Rights { send: vec!["orders*".to_owned()], consume: Vec::new(), manage: Vec::new() };
        assert!(!sender.are_all() && sender.show("orders") && !sender.show("other"));
        assert!(sender.allow(Right::Send, "orders-eu") && !sender.allow(Right::Consume, "orders-eu"));
    }
}
