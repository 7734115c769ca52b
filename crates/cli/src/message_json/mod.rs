//! A message as JSON outside of the service, as commands, programs and applications read and write it.

pub(crate) mod line;
pub(crate) mod object;
