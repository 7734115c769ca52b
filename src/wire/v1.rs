//! The particulars of V1.0 (API reference 7.1).

use super::{Dialect, Wording};

pub(super) const WORDING: Wording = Wording {
    dialect: Dialect::Dms,
    prefix: "/v1.0",
    quotas: "quotas/dms",
    return_id: "returnId",
    delay_time: "delayTime",
};
