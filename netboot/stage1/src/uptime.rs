//! Time since the kernel started, the only clock that a host has before it knows the time.

use std::fs;

/// Returns the milliseconds since the kernel started, or 0 when `/proc` does not tell.
pub(crate) fn milliseconds() -> u64 {
    fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| parse(&text))
        .unwrap_or(0)
}

/// Reads the first number of `/proc/uptime`, which has two decimals.
fn parse(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once('.')?;
    let hundredths = rest.get(..2)?;
    let seconds: u64 = seconds.parse().ok()?;
    let hundredths: u64 = hundredths.parse().ok()?;
    seconds.checked_mul(1000)?.checked_add(hundredths * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read_to_the_hundredth() {
        let cases = [
            ("as the kernel writes it", "12.34 56.78\n", Some(12_340)),
            ("one decimal", "12.3", None),
            ("empty", "", None),
            ("not a number", "x.yz 1.00", None),
            ("too large", "99999999999999999999.00 ", None),
        ];
        for (name, text, expected) in cases {
            assert_eq!(parse(text), expected, "{name}");
        }
    }
}
