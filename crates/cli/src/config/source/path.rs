//! [`KeyPath`]: where a value stands in a configuration.

use std::fmt;

/// The way from the top of a configuration to a value, printed as `workers[0].ack_wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyPath(Vec<String>);

impl KeyPath {
    /// The path with these steps.
    pub(crate) fn new(steps: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(steps.into_iter().map(Into::into).collect())
    }

    /// Reads `server.listen`.
    pub(crate) fn dotted(text: &str) -> Self {
        Self::new(text.split('.'))
    }

    /// The path of a key or an index below this one.
    pub(crate) fn child(&self, step: impl fmt::Display) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.to_string());
        Self(steps)
    }

    /// The path one step up; `None` at the top.
    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, front) = self.0.split_last()?;
        Some(Self(front.to_vec()))
    }

    /// The last step.
    pub(crate) fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    /// The steps from the top.
    pub(crate) fn steps(&self) -> &[String] {
        &self.0
    }

    /// Whether one of the two lies on the way to the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(ours, theirs)| ours == theirs)
    }
}

/// Whether a step is a place in a list: no key of the configuration is a number.
pub(crate) fn index(step: &str) -> Option<usize> {
    step.parse().ok()
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match index(step) {
                Some(index) => write!(f, "[{index}]")?,
                None if place == 0 => f.write_str(step)?,
                None => write!(f, ".{step}")?,
            }
        }
        Ok(())
    }
}
