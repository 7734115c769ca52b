//! "Did you mean": the known word nearest to a mistyped one.

/// The known word that `word` was probably meant to be, whatever their case. A third of the letters may differ.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let tolerated = (word.chars().count() / 3).max(1);
    let distances = known.iter().map(|&candidate| (distance(&word, &candidate.to_lowercase()), candidate));
    distances.filter(|(distance, _)| *distance <= tolerated).min().map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_nothing_far() {
        let known = ["concurrency", "queue", "group", "ack_wait", "poll_wait", "Orders-EU"];
        assert_eq!(nearest("concurency", &known), Some("concurrency"));
        assert_eq!(nearest("akc_wait", &known), Some("ack_wait"));
        assert_eq!(nearest("Queue", &known), Some("queue"));
        assert_eq!(nearest("orders-eu", &known), Some("Orders-EU"));
        assert_eq!(nearest("colour", &known), None);
    }
}
