//! Metrics in the text format that a scraper asks for.

use std::{borrow::Cow, collections::HashSet};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Answers with metrics: in OpenMetrics if the scraper accepts it, otherwise in the Prometheus text format.
pub fn answer(headers: &HeaderMap, open_metrics: String) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let (kind, text) = match accepted.into_iter().any(|accept| accept.contains(OPEN_METRICS)) {
        true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", open_metrics),
        false => ("text/plain; version=0.0.4; charset=utf-8", prometheus(&open_metrics)),
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Joins several OpenMetrics texts into one, which has a single end.
pub fn joined(texts: impl IntoIterator<Item = String>) -> String {
    const END: &str = "# EOF\n";
    let mut all = String::new();
    for text in texts {
        all.push_str(text.strip_suffix(END).unwrap_or(&text));
    }
    all + END
}

/// Converts OpenMetrics text to Prometheus text 0.0.4. There, the description of a counter has its name with `_total`, and
/// there are no lines for units and for the end.
fn prometheus(open_metrics: &str) -> String {
    let types = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: HashSet<_> = types.filter(|(_, kind)| *kind == "counter").map(|(name, _)| name).collect();
    let mut text = String::with_capacity(open_metrics.len() + 16 * counters.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        text.push_str(&described(line, &counters));
        text.push('\n');
    }
    text
}

fn described<'a>(line: &'a str, counters: &HashSet<&str>) -> Cow<'a, str> {
    for keyword in ["# HELP ", "# TYPE "] {
        if let Some((name, rest)) = line.strip_prefix(keyword).and_then(|rest| rest.split_once(' '))
            && counters.contains(name)
        {
            return format!("{keyword}{name}_total {rest}").into();
        }
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_described_by_the_name_of_its_samples() {
        let open_metrics = "\
# HELP a Things counted.
# TYPE a counter
# UNIT a bytes
a_total{x=\"# TYPE a counter\"} 1
# HELP b A gauge of a.
# TYPE b gauge
b 2
# EOF
";
        let wanted = "\
# HELP a_total Things counted.
# TYPE a_total counter
a_total{x=\"# TYPE a counter\"} 1
# HELP b A gauge of a.
# TYPE b gauge
b 2
";
        assert_eq!(prometheus(open_metrics), wanted);
    }
}
