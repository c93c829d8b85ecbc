//! Patterns over paths.
//!
//! It refuses anything beyond `?`, `*` (within one name) and `**` (any number of names).

/// Whether a pattern matches all of a path.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    // reach[j]: the names of the pattern so far match the first j names of the path.
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for name in pattern {
        let mut next = vec![false; path.len() + 1];
        for at in 0..=path.len() {
            next[at] = if name == "**" {
                reach[at] || at > 0 && next[at - 1]
            } else {
                at > 0 && reach[at - 1] && name_matches(name.as_bytes(), path[at - 1].as_bytes())
            };
        }
        reach = next;
    }
    reach[path.len()]
}

/// Matches one name: linear, by going back to the last `*` only.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        let cases = [
            ("kernel/net/**", "kernel/net/bridge/bridge.ko.xz", true),
            ("kernel/net/**", "kernel/network/x.ko", false),
            ("kernel/**/hid-pico*", "kernel/hid-pico.ko", true),
            ("kernel/**/hid-pico*", "kernel/a/b/hid-pico.ko", true),
            ("kernel/*/x.ko", "kernel/a/b/x.ko", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("**", "any/thing", true),
            ("", "x", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = "*a".repeat(1000);
        assert!(!matches(&pattern, &"a".repeat(999)));
    }
}
