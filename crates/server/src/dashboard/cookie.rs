//! The cookies of the dashboard.

use http::{HeaderMap, header};

/// The cookie of the chosen language.
pub(crate) const LANGUAGE_COOKIE: &str = "dms-language";
/// The cookie of the chosen theme.
pub(crate) const THEME_COOKIE: &str = "dms-theme";

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}
