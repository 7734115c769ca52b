//! The faults of a failing disk.

use std::{cell::Cell, path::Path, rc::Rc};

use crate::store::disk::tests::power_cut::watch::{Fault, Faults, OpKind};

/// One way in which a disk fails: all syncs, syncs of the log, a full disk, or any change; sometimes or always.
pub(crate) fn any(mut rng: fastrand::Rng) -> Faults {
    let (way, share) = (rng.u8(..4), *rng.choice(&[0.1, 0.5, 1.0]).unwrap());
    Box::new(move |kind, path| {
        let in_log = path.ends_with("log") || path.extension().is_some_and(|ending| ending == "log");
        let fault = match (way, kind) {
            (0, OpKind::Sync) | (3, _) => Fault::Failed,
            (1, OpKind::Sync) if in_log => Fault::Failed,
            (2, OpKind::Write) => Fault::Full,
            _ => return None,
        };
        (rng.f64() < share).then_some(fault)
    })
}

/// Whether the process was killed.
pub(crate) type Killed = Rc<Cell<bool>>;

/// Kills the process after this number of changes. It makes no more of them.
pub(crate) fn kill_behind(mut changes: usize) -> (Faults, Killed) {
    let killed = Killed::default();
    let tell = killed.clone();
    let faults = move |_: OpKind, _: &Path| {
        tell.set(changes == 0);
        changes = changes.saturating_sub(1);
        tell.get().then_some(Fault::Killed)
    };
    (Box::new(faults), killed)
}
