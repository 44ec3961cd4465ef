//! Plain text tables.

/// Rows under a header; the first column is flush left, the others flush right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles and no rows.
    pub fn new(header: &[&str]) -> Self {
        Table {
            rows: vec![header.iter().map(|&h| h.to_owned()).collect()],
        }
    }

    /// Adds a row; it has as many cells as the header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, each ended by a line feed, with no blanks at their ends.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(c));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let width = widths[c];
                if c == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A count with a decimal unit: 859.52 M.
pub fn count(n: u64) -> String {
    decimal(n, &["", " k", " M", " G", " T"])
}

/// A size with a decimal unit: 2.13 GB.
pub fn bytes(n: u64) -> String {
    decimal(n, &[" B", " kB", " MB", " GB", " TB"])
}

fn decimal(n: u64, units: &[&str]) -> String {
    if n < 1000 {
        return format!("{n}{}", units[0]);
    }
    let mut value = n as f64;
    let mut unit = 0;
    // 999.995 would print as 1000.00 with two decimals.
    while value >= 999.995 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", units[unit])
}

/// A duration: 1.21 s, 210.4 ms.
pub fn seconds(duration: std::time::Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{:.1} ms", 1000.0 * s),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["graph", "nodes"]);
        table.row(["unet".to_owned(), "7".to_owned()]);
        assert_eq!(table.render(), "graph  nodes\nunet       7\n");
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(count(859_520_964), "859.52 M");
        assert_eq!(count(999), "999");
        assert_eq!(count(999_999), "1.00 M");
        assert_eq!(bytes(2_132_625_918), "2.13 GB");
        assert_eq!(bytes(12), "12 B");
    }
}
