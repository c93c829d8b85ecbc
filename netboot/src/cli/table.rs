//! Tables for people: columns as wide as their widest cell.
//!
//! It refuses colours and borders: the same text is good in a log and in a mail.

use std::fmt::Write as _;

use netboot_core::Timestamp;
use netboot_core::boot::printable;

use crate::operate::StateView;

/// Rows of cells below a head.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with the names of its columns.
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        let head = head.iter().map(|name| name.to_uppercase()).collect();
        Self { rows: vec![head] }
    }

    /// Adds a row; an empty cell is shown as `-`, and no cell can leave its line.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                printable(&cell)
            }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a string cannot fail.
                write!(line, "{cell:<width$}  ").ok();
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Shortens a cell to so many characters; the whole text is shown where there is one host.
pub(super) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Writes the power of a host as its BMC said it, and how old that is once it counts no longer.
pub(super) fn power(now: &StateView) -> String {
    let Some(power) = &now.power else {
        return "no BMC".to_owned();
    };
    match (&now.power_was, now.power_was_ms) {
        (Some(was), Some(at)) => format!("{power} ({was} at {})", Timestamp(at).utc()),
        _ => power.clone(),
    }
}

/// Writes a span of milliseconds as people read it: `850 ms`, `12.3 s`, `4 min 05 s`.
pub(super) fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Writes a number of bytes as people read it.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes / KIB),
        _ => format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["host", "verdict"]);
        table.row(["bios1".to_owned(), "healthy".to_owned()]);
        table.row([String::new(), "é\u{1b}[2J\nx".to_owned()]);
        let expected = "HOST   VERDICT\nbios1  healthy\n-      é\u{fffd}[2J\u{fffd}x\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        for (text, shown) in [
            ("idle", "idle"),
            ("stopped: é", "stopped: é"),
            ("stopped: its", "stopped:…"),
            ("stopped:éé its", "stopped:é…"),
        ] {
            assert_eq!(short(text, 10), shown);
        }
    }

    #[test]
    fn power_that_is_no_longer_known_has_an_age() {
        let view = |power: Option<&str>, was: Option<&str>| StateView {
            power: power.map(str::to_owned),
            power_was: was.map(str::to_owned),
            power_was_ms: was.map(|_| 0),
            ..StateView::default()
        };
        let at = Timestamp(0).utc();
        for (view, shown) in [
            (view(None, None), "no BMC".to_owned()),
            (view(Some("on"), None), "on".to_owned()),
            (view(Some("unknown"), None), "unknown".to_owned()),
            (
                view(Some("unknown"), Some("on")),
                format!("unknown (on at {at})"),
            ),
        ] {
            assert_eq!(power(&view), shown);
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (millis(850), "850 ms"),
            (millis(12_345), "12.3 s"),
            (millis(245_000), "4 min 05 s"),
            (bytes(1_023), "1023 B"),
            (bytes(2_048), "2 KiB"),
            (bytes(144_179_200), "137.5 MiB"),
        ];
        for (shown, expected) in cases {
            assert_eq!(shown, expected);
        }
    }
}
