//! `[sysctl]`, `[locale]`, `timezone` and `kernel.load`: settings that are files of the image in the end.
//!
//! It refuses a file of the author's own where one of these is written.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{self, Check};
use super::reader::{Located, Table};
use super::{Content, File, Locale};

const SYSCTL: &str = "etc/sysctl.d/90-image.conf";
const MODULES: &str = "etc/modules-load.d/image.conf";
const LOCALE: &str = "etc/locale.conf";
const OLD_LOCALE: &str = "etc/default/locale";
const LOCALTIME: &str = "etc/localtime";
const TIMEZONE: &str = "etc/timezone";
/// Locales that are there without being made.
const BUILT_IN: [&str; 3] = ["C", "C.UTF-8", "POSIX"];

/// As it was written.
#[derive(Debug, Default)]
pub(super) struct Settings {
    sysctl: Vec<(Located<String>, Located<String>)>,
    default_locale: Option<Located<String>>,
    locales: Vec<Located<String>>,
    timezone: Option<Located<String>>,
}

impl Settings {
    pub(super) fn read(table: &mut Table<'_, '_>) -> Self {
        let timezone = table.string("timezone");
        let sysctl = table.settings("sysctl");
        let locale = table.table("locale", |table| {
            Some((table.string("default"), table.strings("generate")))
        });
        let (default_locale, locales) = locale.unwrap_or_default();
        Self {
            sysctl,
            default_locale,
            locales,
            timezone,
        }
    }

    pub(super) fn extended_by(mut self, child: Self) -> Self {
        self.sysctl.extend(child.sysctl);
        self.default_locale = child.default_locale.or(self.default_locale);
        self.locales.extend(child.locales);
        self.timezone = child.timezone.or(self.timezone);
        self
    }

    /// Checks the settings, adds the files that they are, and returns the locales to make and the time zone.
    pub(super) fn check(
        self,
        check: &mut Check<'_>,
        load: Vec<Located<String>>,
        files: &mut BTreeMap<String, Located<File>>,
    ) -> (Locale, Option<String>) {
        let mut written = Vec::new();
        written.extend(sysctl(check, self.sysctl));
        written.extend(modules(check, load));
        let locale = locale(check, self.default_locale, self.locales);
        if let Some(default) = &locale.default {
            let text = Content::Text(format!("LANG={default}\n"));
            written.push(("`[locale]`", LOCALE, text));
            let link = Content::Target("../locale.conf".to_owned());
            written.push(("`[locale]`", OLD_LOCALE, link));
        }
        let timezone = self.timezone.map(|zone| {
            if !check::is_path(&zone.value) || zone.value.contains(char::is_whitespace) {
                let message = format!("`{}` is no time zone such as `Europe/Berlin`", zone.value);
                check.problems.push(zone.problem(message));
            }
            zone.value
        });
        if let Some(zone) = &timezone {
            let link = Content::Target(format!("../usr/share/zoneinfo/{zone}"));
            written.push(("`timezone`", LOCALTIME, link));
            let text = Content::Text(format!("{zone}\n"));
            written.push(("`timezone`", TIMEZONE, text));
        }
        for (from, path, content) in written {
            if let Some(taken) = files.get(path) {
                let message = format!("`{path}` is written from {from}");
                check.problems.push(taken.problem(message));
            }
            files.insert(path.to_owned(), Located::nowhere(file(path, content)));
        }
        (locale, timezone)
    }
}

type Written = (&'static str, &'static str, Content);

fn file(path: &str, content: Content) -> File {
    File {
        path: path.to_owned(),
        content,
        mode: 0o644,
        user: "root".to_owned(),
        group: "root".to_owned(),
    }
}

fn sysctl(
    check: &mut Check<'_>,
    settings: Vec<(Located<String>, Located<String>)>,
) -> Option<Written> {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in settings {
        // As sysctl.d(5): a `/` in a name stands for a `.` in a component, such as `eth0/100`.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*".contains(&byte);
        if name.value.is_empty() || !name.value.bytes().all(plain) {
            let message = format!("`{}` is no name of a kernel setting", name.value);
            check.problems.push(name.problem(message));
        }
        if value.value.contains(['\n', '\0']) {
            let message = "a kernel setting has one line".to_owned();
            check.problems.push(value.problem(message));
        }
        lines.insert(name.value, value.value);
    }
    let lines: String = lines
        .iter()
        .flat_map(|(name, value)| [name, " = ", value, "\n"])
        .collect();
    (!lines.is_empty()).then_some(("`[sysctl]`", SYSCTL, Content::Text(lines)))
}

fn modules(check: &mut Check<'_>, load: Vec<Located<String>>) -> Option<Written> {
    let names = check.list(load, "name of a module", |name| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        !name.is_empty() && name.bytes().all(plain)
    });
    let lines: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    (!lines.is_empty()).then_some(("`kernel.load`", MODULES, Content::Text(lines)))
}

fn locale(
    check: &mut Check<'_>,
    default: Option<Located<String>>,
    generate: Vec<Located<String>>,
) -> Locale {
    let made = check.list(generate, "locale such as `de_DE.UTF-8`", is_locale);
    let built_in = |name: &String| !BUILT_IN.contains(&name.as_str());
    let generate: BTreeSet<String> = made.into_iter().filter(built_in).collect();
    if let Some(default) = &default
        && !generate.contains(&default.value)
        && !BUILT_IN.contains(&default.value.as_str())
    {
        let message = format!("`{}` is not among `locale.generate`", default.value);
        check.problems.push(default.problem(message));
    }
    Locale {
        default: default.map(|default| default.value),
        generate,
    }
}

/// Whether a text is a locale with its character set, such as `de_DE.UTF-8` or `ca_ES.UTF-8@valencia`.
fn is_locale(text: &str) -> bool {
    if BUILT_IN.contains(&text) {
        return true;
    }
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let (text, modifier) = text.split_once('@').unwrap_or((text, "none"));
    text.split_once('.')
        .is_some_and(|(language, charset)| plain(language) && plain(charset) && plain(modifier))
}
