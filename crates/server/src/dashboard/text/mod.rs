//! The texts of the dashboard. A text that is missing in a language does not compile.

mod chinese;
mod english;

use http::{header, request::Parts};

use crate::dashboard::{
    access::visitor::{LANGUAGE_COOKIE, cookie},
    form::Form,
};

/// A language of the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// 简体中文.
    Chinese,
}

impl Language {
    /// The language of a request: the parameter `lang`, the visitor's choice, or the first known language of the browser.
    pub(crate) fn of(head: &Parts) -> Self {
        let query = Form::parse(head.uri.query().unwrap_or_default().as_bytes());
        let named = query.first("lang").and_then(Self::parse);
        let chosen = || cookie(&head.headers, LANGUAGE_COOKIE).and_then(Self::parse);
        let accepted = || {
            let accepted = head.headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
            accepted.split(',').find_map(|entry| Self::parse(entry.split(';').next().unwrap_or_default().trim()))
        };
        named.or_else(chosen).or_else(accepted).unwrap_or_default()
    }

    /// The language of a tag such as `zh-CN`.
    pub(crate) fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        match () {
            () if primary.eq_ignore_ascii_case("en") => Some(Self::English),
            () if primary.eq_ignore_ascii_case("zh") => Some(Self::Chinese),
            () => None,
        }
    }

    /// Its tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The other language.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::English => Self::Chinese,
            Self::Chinese => Self::English,
        }
    }

    /// Its name in itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    /// Its texts.
    pub fn texts(self) -> &'static Texts {
        match self {
            Self::English => &english::TEXTS,
            Self::Chinese => &chinese::TEXTS,
        }
    }
}

/// Puts `values` in the place of each `{}` of a text, in their order.
pub fn fill(text: &str, values: &[&str]) -> String {
    let mut parts = text.split("{}");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for (place, part) in parts.enumerate() {
        filled.push_str(values.get(place).copied().unwrap_or_default());
        filled.push_str(part);
    }
    filled
}

macro_rules! texts {
    ($($name:ident)*) => {
        /// Every text of the dashboard in one language.
        #[derive(Debug)]
        pub struct Texts {
            $(pub(crate) $name: &'static str,)*
        }

        #[cfg(test)]
        impl Texts {
            /// All texts with their names.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

texts! {
    server worker skip read_only log_out dark light_theme system_theme
    login_title login_help login_token login_submit login_wrong
    denied_title denied_open denied_reader
    overview not_found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_take_the_same_values_in_every_language() {
        let pairs = english::TEXTS.all().into_iter().zip(chinese::TEXTS.all());
        for ((name, english), (_, chinese)) in pairs {
            assert_eq!(english.matches("{}").count(), chinese.matches("{}").count(), "{name}");
            assert!(!english.trim().is_empty() && !chinese.trim().is_empty(), "{name}");
        }
    }

    #[test]
    fn languages_are_found_in_tags() {
        assert_eq!(Language::parse("zh-Hans-CN"), Some(Language::Chinese));
        assert_eq!(Language::parse("en_US"), Some(Language::English));
        assert_eq!((Language::parse("de"), Language::parse("english")), (None, None));
        assert_eq!(fill("{} of {}", &["1", "2"]), "1 of 2");
    }
}
