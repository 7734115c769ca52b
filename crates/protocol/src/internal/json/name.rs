//! [`Name`]: the name of an object's member.

use std::{borrow::Cow, ops::Deref};

use super::Fault;

/// The name of an object's member, without escapes, and its position.
#[derive(Clone, Debug)]
pub struct Name<'a> {
    text: Cow<'a, [u8]>,
    at: usize,
}

impl<'a> Name<'a> {
    pub(super) fn new(text: Cow<'a, [u8]>, at: usize) -> Self {
        Self { text, at }
    }

    /// Stores the value of the member.
    ///
    /// # Errors
    /// When the object has a member of the same name before.
    pub fn once<T>(&self, place: &mut Option<T>, value: T) -> Result<(), Fault> {
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Fault::twice(self.at)),
        }
    }
}

/// The name with its escapes resolved.
impl Deref for Name<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.text
    }
}
