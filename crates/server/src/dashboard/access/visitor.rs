//! [`Visitor`]: the caller of a request to the dashboard, with language and theme.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{HeaderMap, request::Parts};

use crate::{
    dashboard::{
        cookie::{THEME_COOKIE, cookie},
        text::Language,
    },
    net::connection_state::ConnectionState,
};

/// By what right a caller is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The token.
    Operator,
    /// The read token.
    Reader,
    /// The admin address has no token, and is reachable from this machine alone.
    Local,
}

/// Colors of the pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// As the system of the visitor.
    #[default]
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// The rights of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The reason why it is admitted.
    pub role: Role,
    /// Whether it may change something.
    pub acts: bool,
    /// Whether it sees bodies and attributes of messages.
    pub sees_bodies: bool,
    /// The number of its session, if it has one.
    pub session: Option<u32>,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Its rights; `None` before it has logged in.
    pub access: Option<Access>,
    /// Its language.
    pub language: Language,
    /// Its colors.
    pub theme: Theme,
    /// The path and query of the request, for the way back.
    pub here: String,
    /// The address at the other end of the connection, if there is one.
    pub peer: Option<IpAddr>,
}

impl Visitor {
    /// The caller of a request with this head.
    pub(in crate::dashboard) fn new(head: &Parts, here: String, access: Option<Access>) -> Self {
        let (language, theme) = (Language::of(head), Theme::of(&head.headers));
        let peer = head.extensions.get::<Arc<ConnectionState>>().map(|connection| connection.peer());
        Self { access, language, theme, here, peer }
    }

    /// Whether it may change something.
    pub fn acts(&self) -> bool {
        self.access.is_some_and(|access| access.acts)
    }

    /// Whether it sees bodies and attributes of messages.
    pub fn sees_bodies(&self) -> bool {
        self.access.is_some_and(|access| access.sees_bodies)
    }
}

impl Theme {
    fn of(headers: &HeaderMap) -> Self {
        cookie(headers, THEME_COOKIE).and_then(Self::parse).unwrap_or_default()
    }

    /// The theme of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::System, Self::Light, Self::Dark].into_iter().find(|theme| theme.as_str() == name)
    }

    /// `system`, `light` or `dark`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

impl fmt::Display for Access {
    /// `token`, `read token` or `local`, with the number of the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.role {
            Role::Operator => "token",
            Role::Reader => "read token",
            Role::Local => "local",
        })?;
        self.session.map_or(Ok(()), |session| write!(f, " {session:06x}"))
    }
}
