//! The particulars of V2 (API reference 5).

use super::{Dialect, Wording};

pub(super) const WORDING: Wording = Wording {
    dialect: Dialect::Dms,
    prefix: "/v2",
    quotas: "quotas",
    return_id: "return_id",
    delay_time: "delay_time",
};
