//! HTML that all pages share.

pub(crate) mod activity;
pub(crate) mod charts;
pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod json;
pub(crate) mod left;
pub(crate) mod live;
