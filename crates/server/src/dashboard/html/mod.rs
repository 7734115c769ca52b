//! HTML that all pages share.

pub(crate) mod frame;
