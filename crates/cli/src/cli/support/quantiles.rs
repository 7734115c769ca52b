//! Quantiles of measured durations.

use std::time::Duration;

/// The percentile of sorted durations in milliseconds; zero if there are none.
pub(crate) fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((quantile(&values, 50), quantile(&values, 99)), (50.0, 99.0));
        assert_eq!(quantile(&[], 50), 0.0);
    }
}
