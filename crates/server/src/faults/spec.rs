//! The text form of a [`FaultPlan`], for a command line.

use std::{str::FromStr, time::Duration};

use jiff::SignedDuration;

use super::{Fault, FaultPlan, FaultRule};

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.strip_prefix("seed=") {
                Some(seed) => plan.seed = seed.parse().map_err(|_| format!("{part:?}: the seed is not a number"))?,
                None => plan.rules.push(rule(part).map_err(|reason| format!("{part:?}: {reason}"))?),
            }
        }
        Ok(plan)
    }
}

fn rule(part: &str) -> Result<FaultRule, String> {
    let (what, probability) =
        part.rsplit_once(':').ok_or("a probability is missing: a fault ends in : and a number from 0 to 1")?;
    let probability = probability
        .parse::<f64>()
        .ok()
        .filter(|value| (0.0..=1.0).contains(value))
        .ok_or_else(|| format!("the probability {probability:?} is not a number from 0 to 1"))?;
    let (what, operation) = match what.split_once('@') {
        Some((what, operation)) => (what, Some(operation.parse()?)),
        None => (what, None),
    };
    Ok(FaultRule { fault: fault(what)?, operation, probability })
}

fn fault(text: &str) -> Result<Fault, String> {
    if let Some(duration) = text.strip_prefix("latency=") {
        let parsed = duration.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        return parsed.map(Fault::Latency).ok_or_else(|| format!("{duration:?} is not a duration like 200ms or 2s"));
    }
    match text {
        "latency" => Err("latency needs a duration, as in latency=200ms".to_owned()),
        "error" => Ok(Fault::ServerError),
        "throttle" => Ok(Fault::Throttled),
        "lost" => Ok(Fault::LostAnswer),
        "reset" => Ok(Fault::Reset),
        "duplicate" => Ok(Fault::Duplicate),
        "expired" => Ok(Fault::ExpiredLease),
        "partial" => Ok(Fault::PartialAck),
        other => Err(format!(
            "{other:?} is not a fault: latency=…, error, throttle, lost, reset, duplicate, expired, partial"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::operation::Operation;

    #[test]
    fn a_plan_is_read_from_its_parts() {
        let plan = "seed=7, latency=200ms:0.1,lost@send:0.02,error:1".parse::<FaultPlan>();
        let rules = vec![
            FaultRule::new(Fault::Latency(Duration::from_millis(200)), 0.1),
            FaultRule::new(Fault::LostAnswer, 0.02).on(Operation::Send),
            FaultRule::new(Fault::ServerError, 1.0),
        ];
        assert_eq!(plan, Ok(FaultPlan { seed: 7, rules }));
        assert_eq!("".parse(), Ok(FaultPlan::default()));
    }

    #[test]
    fn a_bad_part_is_named_with_its_remedy() {
        for (text, reason) in [
            ("error", "a probability is missing"),
            ("error:2", "the probability \"2\" is not a number from 0 to 1"),
            ("error:NaN", "is not a number from 0 to 1"),
            ("latency:0.1", "latency needs a duration"),
            ("latency=-1s:0.1", "\"-1s\" is not a duration"),
            ("explode:0.1", "\"explode\" is not a fault"),
            ("lost@sned:0.1", "\"sned\" is not one of create_queue"),
            ("seed=x", "the seed is not a number"),
        ] {
            let error = text.parse::<FaultPlan>().err().unwrap_or_default();
            assert!(error.starts_with(&format!("{text:?}: ")) && error.contains(reason), "{text}: {error}");
        }
    }
}
