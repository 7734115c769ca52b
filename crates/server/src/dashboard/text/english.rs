//! The texts in English.

use super::Texts;

pub(super) const TEXTS: Texts = Texts {
    server: "server",
    worker: "worker",
    skip: "Skip to the content",
    read_only: "read only",
    log_out: "Log out",
    dark: "Dark",
    light_theme: "Light",
    system_theme: "Auto",
    login_title: "Log in",
    login_help: "Enter the token of the admin address. The read token shows everything but changes nothing.",
    login_token: "Token",
    login_submit: "Log in",
    login_wrong: "This token is wrong.",
    denied_title: "Read only",
    denied_open: "Nothing can be changed here because the admin address has no token. Set a token, or set dashboard.actions to true.",
    denied_reader: "The read token shows everything but changes nothing. Log in with the token to do this.",
    overview: "Overview",
    not_found: "There is no such page",
};
