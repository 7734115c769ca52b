//! `quota`: the project's quotas.

use serde_json::json;

use crate::cli::support::{context::Context, failure::Failure, table::Table};

/// Shows the quotas.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let quotas = context.client()?.quotas().await?;
    let mut table = Table::new(&["KIND", "LIMIT", "USED"]);
    for quota in &quotas {
        let used = quota.used.map_or_else(|| "-".to_owned(), |used| used.to_string());
        table.row([quota.kind.clone(), quota.quota.to_string(), used]);
    }
    let json: Vec<_> = quotas.iter().map(|quota| json!(quota)).collect();
    Ok(context.printer().table(&table, &json)?)
}
