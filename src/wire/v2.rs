//! The particulars of V2 (API reference 5).

use super::Dialect;

pub(super) const DIALECT: Dialect =
    Dialect { prefix: "/v2", quotas: "quotas", return_id: "return_id", delay_time: "delay_time" };
