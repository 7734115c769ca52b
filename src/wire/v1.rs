//! The particulars of V1.0 (API reference 7.1).

use super::Dialect;

pub(super) const DIALECT: Dialect =
    Dialect { prefix: "/v1.0", quotas: "quotas/dms", return_id: "returnId", delay_time: "delayTime" };
