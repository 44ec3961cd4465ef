//! "Did you mean": the nearest of the known names.

/// Letters that make the start of a name recognizable.
const PREFIX: usize = 3;

/// The known name nearest to `given`, when it is near enough to be what was meant, or starts with it.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = given.chars().count();
    let limit = length / 3 + 1;
    known
        .into_iter()
        .map(|name| {
            let is_start = length >= PREFIX && name.starts_with(given);
            (
                if is_start {
                    1
                } else {
                    edit_distance(given, name)
                },
                name,
            )
        })
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_of_the_textbook_pair() {
        assert_eq!(edit_distance("saturday", "sunday"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["precision", "passes", "guidance"];
        assert_eq!(nearest("precison", known), Some("precision"));
        assert_eq!(nearest("weights", known), None);
        assert_eq!(nearest("guid", known), Some("guidance"));
        assert_eq!(nearest("g", known), None);
    }
}
