//! The delivery and its parts.

use serde::de::DeserializeOwned;

use super::FromDelivery;
use crate::{
    message::{Attributes, Body, MessageId},
    worker::handler::{delivery::Delivery, error::HandlerError},
};

impl<S: Sync> FromDelivery<S> for Delivery {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(delivery.clone())
    }

    async fn from_owned(delivery: Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(delivery)
    }
}

impl<S: Sync> FromDelivery<S> for Body {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(delivery.body().clone())
    }
}

impl<S: Sync> FromDelivery<S> for Attributes {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(delivery.attributes().clone())
    }
}

/// The message is [rejected](HandlerError::reject) if it has no id, which happens on other services only. Take
/// `Option<MessageId>` there.
impl<S: Sync> FromDelivery<S> for MessageId {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        delivery.id().ok_or_else(|| HandlerError::reject("the service sent no id with the message"))
    }
}

impl<S: Sync> FromDelivery<S> for Option<MessageId> {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(delivery.id())
    }
}

/// The attributes, decoded into a struct whose fields have their names. Attributes without a field are ignored.
///
/// The message is [rejected](HandlerError::reject) if an attribute is missing or has another type, because its
/// attributes never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypedAttributes<T>(pub T);

impl<T: DeserializeOwned + Send, S: Sync> FromDelivery<S> for TypedAttributes<T> {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        let decoded = serde_json::from_str(&delivery.attributes().to_json());
        decoded.map(Self).map_err(|error| HandlerError::reject(format!("the attributes cannot be decoded: {error}")))
    }
}

/// The labels; see [`Delivery::tags`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(pub Vec<String>);

impl<S: Sync> FromDelivery<S> for Tags {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(Self(delivery.tags().to_vec()))
    }
}

/// The number of this attempt, from 1; see [`Delivery::attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub u32);

impl<S: Sync> FromDelivery<S> for Attempt {
    async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(Self(delivery.attempt()))
    }
}
