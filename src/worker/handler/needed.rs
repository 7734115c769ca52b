//! Which attributes the layers of a worker read, so that a service without attributes can be refused when the worker is built.
//!
//! A layer may be inside another one whose type the worker does not know. So a layer reports what it reads while the worker applies
//! its layers, which is all on one thread.

use std::cell::RefCell;

thread_local! {
    /// `None` while no worker applies its layers.
    static NEEDED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Says that a layer reads this attribute. Called when the layer is applied.
pub(crate) fn needs_attribute(name: &str) {
    NEEDED.with_borrow_mut(|needed| needed.as_mut().into_iter().for_each(|needed| needed.push(name.to_owned())));
}

/// Applies layers. Returns the attributes that they read, too.
pub(crate) fn collect<T>(apply: impl FnOnce() -> T) -> (T, Vec<String>) {
    NEEDED.set(Some(Vec::new()));
    let applied = apply();
    (applied, NEEDED.take().unwrap_or_default())
}
