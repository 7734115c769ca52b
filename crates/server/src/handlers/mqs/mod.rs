//! The REST API of ROMA Connect MQS: producing, consuming and acknowledging by the names of topics and groups.
//!
//! A request arrives here with the ids of its queue and its group in place of their names. `docs/mqs.md` says which parts of this
//! dialect are documented by the vendor.

pub(crate) mod ack;
pub(crate) mod consume;
pub(crate) mod produce;

use crate::{
    handlers::request::ApiRequest,
    http::{error::ApiError, operation::Operation},
};

/// Checks everything of a request that does not depend on its topic, before a topic or a group is created for it.
///
/// # Errors
/// The error with which the request would be refused afterwards.
pub(crate) fn check(request: &ApiRequest<'_>, operation: Operation) -> Result<(), ApiError> {
    match operation {
        Operation::Send => produce::check_body(request.body),
        Operation::Consume => consume::check_query(request),
        // It creates nothing.
        _ => Ok(()),
    }
}
