//! The DMS server: the API on HTTP, over a [`Broker`](broker::Broker).

pub mod broker;
