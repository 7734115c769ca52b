//! `dlq list --by-reason`: why the dead letters of each group died.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::cli::{
    commands::dlq::{
        filter::Filter,
        look::{ListArgs, Look, Row},
        selection::Selection,
    },
    support::{context::Context, failure::Failure, table::Table},
};
use dms_worker::{
    client::Client,
    worker::attributes::{ERROR, LAST_FAILURE, REASON},
};

/// The word for dead letters without a reason. Other services and older versions keep none.
const UNKNOWN: &str = "unknown";

/// What the dead letters with one reason have in common.
#[derive(Debug, Default)]
struct Died {
    count: u64,
    /// When one of them failed last, and its error.
    last_ms: Option<i64>,
    error: Option<String>,
}

/// Lists the reasons of each group, the most frequent first.
pub(super) async fn list(client: &Client, args: &ListArgs, context: &Context) -> Result<(), Failure> {
    let queue = client.find_queue(&args.queue).await?;
    let groups = match &args.group {
        Some(group) => vec![client.find_group(&queue.id, group).await?],
        None => client.groups(&queue.id).await?,
    };
    let what = if args.parked { "PARKED" } else { "DEAD LETTERS" };
    let mut table = Table::new(&["GROUP", "REASON", what, "LAST FAILURE", "LAST ERROR"]);
    let mut objects = Vec::new();
    for group in groups.iter().filter(|group| args.parked || group.available_dead_letters != Some(0)) {
        let which = Selection { queue: args.queue.clone(), group: group.name.clone(), parked: args.parked };
        let look = Look { which: &which, filter: &Filter::default(), max: u64::MAX, admin: args.admin.as_deref() };
        let reasons = by_reason(&look.rows(client, context).await?);
        for (reason, died) in most_frequent_first(reasons) {
            let last = died.last_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|time| time.to_string());
            objects.push(json!({
                "group": group.name,
                "reason": reason,
                (if args.parked { "parked" } else { "dead_letters" }): died.count,
                "last_failure": died.last_ms,
                "last_error": died.error,
            }));
            let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            table.row([group.name.clone(), reason, died.count.to_string(), text(last), text(died.error)]);
        }
    }
    Ok(context.printer().table(&table, &objects)?)
}

fn by_reason(rows: &[Row]) -> BTreeMap<String, Died> {
    let mut reasons = BTreeMap::<String, Died>::new();
    for row in rows {
        let attribute = |name| row.attributes.text(name).map(std::borrow::Cow::into_owned);
        let info = row.died.as_ref();
        let reason = info.map(|info| info.reason.clone()).or_else(|| attribute(REASON));
        let died = reasons.entry(reason.unwrap_or_else(|| UNKNOWN.to_owned())).or_default();
        died.count += 1;
        let parked = || Some(attribute(LAST_FAILURE)?.parse::<Timestamp>().ok()?.as_millisecond());
        let failed = info.map_or_else(parked, |info| info.last_failure_ms);
        if failed >= died.last_ms {
            died.last_ms = failed;
            died.error = info.and_then(|info| info.error.clone()).or_else(|| attribute(ERROR)).or(died.error.take());
        }
    }
    reasons
}

fn most_frequent_first(reasons: BTreeMap<String, Died>) -> Vec<(String, Died)> {
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, died)| std::cmp::Reverse(died.count));
    reasons
}
