//! The options of every command.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A saved context, instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The address of the service, as in http://127.0.0.1:9400 [config: dms.endpoint]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The project [config: dms.project_id]
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) project_id: Option<String>,
    /// The version of the API: v2 or v1.0 [config: dms.api_version]
    #[arg(long, global = true, value_name = "VERSION")]
    pub(crate) api_version: Option<String>,
    /// The API of the service: dms, or mqs for ROMA Connect MQS [config: dms.dialect]
    #[arg(long, global = true, value_name = "DIALECT")]
    pub(crate) dialect: Option<String>,
    /// Output format: text or json
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Format,
    /// Show causes of errors and debug logs; twice for trace logs
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show errors only, and no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Colours: auto, always or never; auto respects NO_COLOR
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: Color,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and lines for people
    Text,
    /// JSON for programs
    Json,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// What the arguments ask for, read before clap does: its help and its errors have colours too. A value that clap will
    /// refuse counts as none.
    pub(crate) fn asked(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut arguments = arguments.into_iter().take_while(|argument| argument != "--");
        let mut asked = None;
        while let Some(argument) = arguments.next() {
            let value = match argument.to_str().and_then(|text| text.strip_prefix("--color")) {
                Some("") => arguments.next(),
                Some(rest) => rest.strip_prefix('=').map(OsString::from),
                None => None,
            };
            asked = value.and_then(|value| Self::from_str(value.to_str()?, false).ok()).or(asked);
        }
        asked.unwrap_or(Self::Auto)
    }

    /// The same for clap.
    pub(crate) fn choice(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_known_before_the_arguments_are() {
        let asked = |line: &str| Color::asked(line.split(' ').map(OsString::from));
        assert_eq!(asked("queue --color never --help"), Color::Never);
        assert_eq!(asked("--color=always nonsense"), Color::Always);
        for other in ["--help", "--color", "--color mauve", "--colors never", "send q -- --color never"] {
            assert_eq!(asked(other), Color::Auto, "{other}");
        }
    }
}
