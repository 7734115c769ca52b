//! [`Json`]: the decoded body.

use serde::de::DeserializeOwned;

use super::FromDelivery;
use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// The body, decoded as [`Delivery::json`] does.
///
/// A body that cannot be decoded does not reach the function:
/// [`OnUndecodable`](crate::worker::OnUndecodable) decides what becomes of the message, which by default is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send, S: Sync> FromDelivery<S> for Json<T> {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        delivery.json().map(Self)
    }
}
