//! [`LogFields`]: the fields of a line of the text log, what a terminal would obey escaped.

use std::{
    error::Error,
    fmt::{self, Debug},
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

use dms_protocol::internal::visible::visible;

/// Writes `the message name=value name=value`, as the format of the library does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogFields;

impl<'w> FormatFields<'w> for LogFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = LineWriter { writer, empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct LineWriter<'w> {
    writer: Writer<'w>,
    empty: bool,
    result: fmt::Result,
}

impl LineWriter<'_> {
    fn push(&mut self, field: &Field, value: &str) -> fmt::Result {
        if !self.empty {
            self.writer.write_char(' ')?;
        }
        self.empty = false;
        let name = field.name().trim_start_matches("r#");
        match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => {}
            // The name in italics, the separator dimmed.
            (name, true) => write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
            (name, false) => write!(self.writer, "{name}=")?,
        }
        self.writer.write_str(&visible(value))
    }
}

impl Visit for LineWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // What the `log` crate says about its own records is in the line already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.push(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            text.push_str(&format!(": {source}"));
            next = source.source();
        }
        self.record_debug(field, &format_args!("{text}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `log` logs.
    fn logged(colored: bool, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(LogFields)
            .with_writer(move || out.clone())
            .with_ansi(colored)
            .without_time()
            .with_target(false);
        tracing::subscriber::with_default(subscriber.finish(), log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_text_in_a_log_is_shown_and_not_obeyed() {
        let foreign = "\u{1b}[31m\u{1b}]52;c;eA==\u{7}\r\n\u{9b}2J\u{202e}\u{2028}";
        let shown = "\\u{1b}[31m\\u{1b}]52;c;eA==\\u{7}\\r\\n\\u{9b}2J\\u{202e}\\u{2028}";
        let error = io::Error::other(foreign);
        let text = logged(false, || {
            let span = tracing::info_span!("handle", queue = %foreign);
            let _entered = span.enter();
            tracing::info!(plain = foreign, display = %foreign, error = &error as &dyn Error, n = 1, "{foreign}");
        });
        let plain = "\\u{1b}[31m\\u{1b}]52;c;eA==\\u{7}\\r\\n\\u{9b}2J\\u{202e}\\u{2028}";
        assert_eq!(
            text,
            format!(" INFO handle{{queue={shown}}}: {shown} plain=\"{plain}\" display={shown} error={shown} n=1\n")
        );
        let colored = logged(true, || tracing::info!(display = %foreign, "{foreign}"));
        assert!(
            colored.ends_with(&format!("{shown} \u{1b}[3mdisplay\u{1b}[0m\u{1b}[2m=\u{1b}[0m{shown}\n")),
            "{colored:?}"
        );
    }
}
