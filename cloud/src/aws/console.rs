//! What an instance has said on its console.
//!
//! It refuses to repeat what a terminal would obey.

use image_manifest::{Console, Digest, Verdict};

/// Most characters of a console's line in an error.
const LONGEST: usize = 200;

/// What a console has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is healthy, and runs the tree that it should.
    Well,
    /// It is not, and never will be.
    Ill(String),
    /// Nothing that counts; this is the last line.
    Nothing(String),
}

/// Reads a console.
pub(super) fn said(text: &str, tree: &Digest) -> Said {
    let mut console = Console::default();
    text.lines().for_each(|line| console.read(line));
    match (console.verdict, console.failure) {
        (Some(verdict), _) if verdict.healthy && verdict.tree == *tree => Said::Well,
        (Some(verdict), _) => Said::Ill(reasons(&verdict)),
        (None, Some(failure)) => Said::Ill(tamed(&failure)),
        (None, None) => {
            let last = text.lines().rev().map(tamed).find(|line| !line.is_empty());
            Said::Nothing(last.unwrap_or_else(|| "nothing".to_owned()))
        }
    }
}

fn reasons(verdict: &Verdict) -> String {
    let word = if verdict.healthy {
        "healthy"
    } else {
        "unhealthy"
    };
    let failed = verdict
        .checks
        .iter()
        .filter(|check| check.problem.is_some());
    let failed: Vec<_> = failed.map(|check| tamed(&check.to_string())).collect();
    let what = format!("{word}, with tree {}", verdict.tree);
    if failed.is_empty() {
        return what;
    }
    format!("{what}: {}", failed.join("; "))
}

/// A line of a console as it may be shown: without what a terminal would obey, and not without end.
fn tamed(line: &str) -> String {
    let shown = line.chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_healthy_host_with_the_right_tree_is_well() {
        let (right, wrong) = (Digest::of(b"tree"), Digest::of(b"another"));
        let verdict = |word: &str, tree: Digest| {
            format!("login: [ 9.1] firstboot: verdict: {word}, init running, tree {tree}\r\n")
        };
        let ill = format!(
            "firstboot: check failed: port 22: closed\n{}",
            verdict("unhealthy", right)
        );
        let cases = [
            (verdict("healthy", right), "Well"),
            (
                verdict("healthy", wrong),
                "Ill(\"healthy, with tree sha256:",
            ),
            (ill, "check failed: port 22: closed"),
            (
                "Kernel panic - not syncing: VFS".to_owned(),
                "Ill(\"Kernel panic",
            ),
            ("a\n\u{1b}[31mb\n\n".to_owned(), "Nothing(\"[31mb\")"),
            (String::new(), "Nothing(\"nothing\")"),
        ];
        for (text, expected) in cases {
            let found = format!("{:?}", said(&text, &right));
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
