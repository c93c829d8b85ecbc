use super::*;

/// Builds an index out of `name version field: value; field: value` lines.
fn index(lines: &[&str]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.splitn(3, ' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let entry = [
            format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n"),
            format!("Filename: pool/{name}_{version}.deb\nSize: {}\n", at + 1),
            format!("SHA256: {}\n", "ab".repeat(32)),
        ];
        text.extend(entry);
        for field in words
            .next()
            .unwrap_or("")
            .split("; ")
            .filter(|field| !field.is_empty())
        {
            text += field;
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn resolved(lines: &[&str], install: &[&str]) -> Result<Vec<String>, Error> {
    let text = index(lines);
    let mut universe = Universe::new();
    universe.add(0, "amd64", &text).unwrap();
    let request = Request {
        architecture: "amd64",
        install: install
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, version)) => (name, Some(version)),
                None => (*word, None),
            })
            .collect(),
        essential: Essential::Include,
    };
    let packages = resolve(&universe, &request)?;
    Ok(packages
        .iter()
        .map(|package| format!("{}={}", package.name, package.version))
        .collect())
}

#[test]
fn requests_are_answered_as_apt_would() {
    let cases: [(&str, &[&str], &[&str], &str); 12] = [
        ("newest", &["a 1", "a 2", "a 1.5"], &["a"], "a=2"),
        ("exact", &["a 1", "a 2"], &["a=1"], "a=1"),
        (
            "essential",
            &["a 1", "e 1 Essential: yes"],
            &["a"],
            "a=1 e=1",
        ),
        (
            "dependencies",
            &[
                "a 1 Depends: b (>= 2); Pre-Depends: c",
                "b 2 Depends: d",
                "c 1",
                "d 1",
                "x 1",
            ],
            &["a"],
            "a=1 b=2 c=1 d=1",
        ),
        (
            "first alternative",
            &["a 1 Depends: b | c", "b 1", "c 1"],
            &["a"],
            "a=1 b=1",
        ),
        (
            "alternative that is asked for",
            &["a 1 Depends: b | c", "b 1", "c 1"],
            &["a", "c"],
            "a=1 c=1",
        ),
        (
            "alternative that works",
            &["a 1 Depends: b | c", "b 1 Depends: no", "c 1"],
            &["a"],
            "a=1 c=1",
        ),
        (
            "real before provided",
            &["a 1 Depends: m", "am 1 Provides: m", "m 1"],
            &["a"],
            "a=1 m=1",
        ),
        (
            "provider by priority",
            &[
                "a 1 Depends: m",
                "am 1 Provides: m",
                "zm 1 Provides: m; Priority: standard",
            ],
            &["a"],
            "a=1 zm=1",
        ),
        (
            "versioned provision",
            &[
                "a 1 Depends: m (>= 2)",
                "am 1 Provides: m",
                "bm 1 Provides: m (= 1)",
                "cm 1 Provides: m (= 3)",
            ],
            &["a"],
            "a=1 cm=1",
        ),
        (
            "conflict",
            &["a 1 Depends: b | c", "b 1 Conflicts: d", "c 1", "d 1"],
            &["a", "d"],
            "a=1 c=1 d=1",
        ),
        (
            "conflict with what it provides",
            &["a 1 Provides: m; Conflicts: m", "b 1 Depends: m"],
            &["a", "b"],
            "a=1 b=1",
        ),
    ];
    for (name, lines, install, expected) in cases {
        let found = resolved(lines, install).unwrap().join(" ");
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn an_exact_version_brings_its_older_siblings() {
    let lines = ["a 1 Depends: l (= 1)", "a 2 Depends: l (= 2)", "l 1", "l 2"];
    assert_eq!(resolved(&lines, &["a=1"]).unwrap(), ["a=1", "l=1"]);
}

#[test]
fn qualifiers_name_this_architecture_or_nothing() {
    let lines = [
        "a 1 Depends: b:any, c:amd64",
        "b 1",
        "c 1",
        "d 1 Depends: c:i386",
    ];
    assert_eq!(resolved(&lines, &["a"]).unwrap(), ["a=1", "b=1", "c=1"]);
    assert!(resolved(&lines, &["d"]).is_err());
}

#[test]
fn what_has_no_answer_says_why() {
    let cases: [(&str, &[&str], &[&str], &str); 5] = [
        ("unknown", &["a 1"], &["b"], "no suite has a package `b`"),
        (
            "unknown version",
            &["a 1", "a 2"],
            &["a=3"],
            "but in `2`, `1`",
        ),
        (
            "dependency that is not there",
            &["a 1 Depends: no (>= 2)"],
            &["a"],
            "no (>= 2)",
        ),
        (
            "conflict",
            &["a 1 Breaks: b (<< 2)", "b 1"],
            &["a", "b"],
            "do not fit",
        ),
        (
            "malformed",
            &["a 1 Depends: ((", "b 1"],
            &["a"],
            "malformed relations",
        ),
    ];
    for (name, lines, install, expected) in cases {
        let error = resolved(lines, install).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
