//! The parts that `dms-worker-cli` uses: listeners with their limits and checks. Not covered by semantic versioning.

/// Fills `bytes` with random numbers of the system, for secrets.
///
/// # Errors
/// When the system has none.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(std::io::Error::other)
}

pub use crate::{
    broker::sealed::Sealed,
    http::{bearer, body, host_check},
    metrics::exposition,
    net::{connection, connection_limit, connection_state, descriptors, limits, listener},
};

/// The parts of a dashboard that do not depend on the process it shows.
#[cfg(feature = "dashboard")]
pub mod dashboard {
    pub use crate::dashboard::{
        access::{
            activity::{Activity, ActivityRow},
            gate::{Gate, GateParts},
            visitor::{Access, Role, Theme, Visitor},
        },
        behind_gate,
        form::{Form, UnreadableForm},
        html::{
            activity::activity_page,
            charts::{Chart, charts},
            format::{bytes, foreign, number, rate, span, time},
            frame::{Ui, notice, see_other},
            left::{countdown, ticking},
            live::{Live, points},
        },
        product::Product,
        series::{Range, Series},
        text::{Language, Texts, fill},
    };
}
