//! Finds in dpkg's output which package failed, in which script, and what it said last.

/// A failed script, as dpkg tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) package: String,
    pub(crate) script: String,
    pub(crate) status: String,
    pub(crate) said: String,
}

/// Lines of the script's own output that are shown.
const LINES: usize = 12;

/// Looks for the first script that failed; others may only have depended on it.
pub(crate) fn find(output: &str) -> Option<Failure> {
    let lines: Vec<&str> = output.lines().collect();
    let at = lines.iter().position(|line| {
        line.starts_with("dpkg: error processing package ") && line.ends_with(':')
    });
    let at = at.filter(|at| {
        lines
            .get(at + 1)
            .is_some_and(|line| line.contains(" script "))
    });
    let at = at.or_else(|| {
        (1..lines.len()).map(|next| next - 1).find(|at| {
            lines[*at].starts_with("dpkg: error processing package ")
                && lines[*at + 1].contains(" script ")
        })
    })?;
    let package = lines[at].strip_prefix("dpkg: error processing package ")?;
    let package = package.split(" (").next()?.to_owned();
    // ` installed NAME package SCRIPT script subprocess returned error exit status N`
    let (_, told) = lines[at + 1].split_once(" package ")?;
    let (script, status) = told.split_once(" script ")?;
    let status = status.strip_prefix("subprocess ").unwrap_or(status);
    let status = status.strip_prefix("returned error ").unwrap_or(status);
    let begin = lines[..at]
        .iter()
        .rposition(|line| {
            line.starts_with("Setting up ") || line.starts_with("Processing triggers for ")
        })
        .map_or(0, |begin| begin + 1);
    let said = &lines[begin.max(at.saturating_sub(LINES))..at];
    Some(Failure {
        package,
        script: script.to_owned(),
        status: status.to_owned(),
        said: said.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_that_failed_is_found() {
        let output = "Setting up a (1) ...\nfine\nSetting up b:amd64 (2) ...\nno such user\n\
            dpkg: error processing package b:amd64 (--configure):\n \
            installed b:amd64 package post-installation script subprocess returned error exit status 3\n\
            dpkg: dependency problems prevent configuration of c:\n c depends on b.\n\n\
            dpkg: error processing package c (--configure):\n dependency problems - leaving unconfigured\n";
        let failure = find(output).unwrap();
        assert_eq!(failure.package, "b:amd64");
        assert_eq!(failure.script, "post-installation");
        assert_eq!(failure.status, "exit status 3");
        assert_eq!(failure.said, "no such user");
    }

    #[test]
    fn other_output_is_no_failure_of_a_script() {
        for output in [
            "",
            "dpkg: error processing package x (--configure):",
            "Setting up x ...",
        ] {
            assert_eq!(find(output), None, "{output}");
        }
    }
}
