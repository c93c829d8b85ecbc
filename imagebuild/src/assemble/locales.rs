//! Locales: made by the image's own `localedef`, whose version their format follows.
//!
//! It refuses the archive of all locales: its bytes depend on the order in which they were added.

use super::root::Root;
use super::{Build, Error};
use crate::configure;

/// Lines of `localedef` that an error shows.
const LINES: usize = 6;

/// Makes the locales that the definition asks for.
pub(super) fn make(build: &Build<'_>, root: &mut Root<'_>) -> Result<(), Error> {
    let locales = &build.locked.definition().locale.generate;
    if locales.is_empty() {
        return Ok(());
    }
    let is_there = |path: &str| root.find(path).is_ok();
    if !is_there("usr/bin/localedef") || !is_there("usr/share/i18n/SUPPORTED") {
        return Err(Error::NoLocales);
    }
    root.make_directory("usr/lib/locale")
        .map_err(|source| Error::Place {
            path: "usr/lib/locale".to_owned(),
            source,
        })?;
    for locale in locales {
        tracing::info!(step = "locales", locale, "making a locale");
        let (name, charset, input) = split(locale);
        let argv = [
            "/usr/bin/localedef",
            "--no-archive",
            "--no-hard-links",
            "-c",
            "-i",
            &input,
            "-f",
            &charset,
            &name,
        ];
        let path = root.path().to_owned();
        let outcome = configure::run_in(&path, root.owners(), &build.settings(), &argv)?;
        // As `locale-gen`: 1 says that there were warnings, and the locale is there.
        let warned = outcome.status.to_string().ends_with(" 1");
        if !outcome.succeeded() && !warned {
            return Err(Error::Localedef {
                locale: locale.clone(),
                status: outcome.status.to_string(),
                output: outcome.last_lines(LINES),
            });
        }
    }
    Ok(())
}

/// Splits `ca_ES.UTF-8@valencia` into where it goes, its character set and the definition `ca_ES@valencia`.
fn split(locale: &str) -> (String, String, String) {
    let (plain, modifier) = match locale.split_once('@') {
        Some((plain, modifier)) => (plain, format!("@{modifier}")),
        None => (locale, String::new()),
    };
    let (language, charset) = plain.split_once('.').unwrap_or((plain, "UTF-8"));
    // As glibc looks for it: lower case, letters and digits only.
    let normal: String = charset
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    (
        format!("/usr/lib/locale/{language}.{normal}{modifier}"),
        charset.to_owned(),
        format!("{language}{modifier}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales_go_where_glibc_looks_for_them() {
        let cases = [
            (
                "de_DE.UTF-8",
                ("/usr/lib/locale/de_DE.utf8", "UTF-8", "de_DE"),
            ),
            (
                "ca_ES.UTF-8@valencia",
                (
                    "/usr/lib/locale/ca_ES.utf8@valencia",
                    "UTF-8",
                    "ca_ES@valencia",
                ),
            ),
            (
                "ja_JP.EUC-JP",
                ("/usr/lib/locale/ja_JP.eucjp", "EUC-JP", "ja_JP"),
            ),
        ];
        for (locale, expected) in cases {
            let (name, charset, input) = split(locale);
            let found = (name.as_str(), charset.as_str(), input.as_str());
            assert_eq!(found, expected, "{locale}");
        }
    }
}
