//! Typed values out of a TOML document, noting every problem and going on.
//!
//! It refuses to stop early: a value that cannot be used is noted with its place and left out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// The file that values come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: Arc<PathBuf>,
    pub(super) text: Arc<str>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) source: Source,
}

impl<T> Located<T> {
    /// Places a value that no file holds: nothing can be wrong with it.
    pub(super) fn nowhere(value: T) -> Self {
        Self {
            value,
            span: 0..0,
            source: Source::new(Path::new(""), ""),
        }
    }

    pub(super) fn problem(&self, message: String) -> Problem {
        self.source.problem(self.span.clone(), message)
    }

    /// Places another value where this one stands.
    pub(super) fn with<U>(&self, value: U) -> Located<U> {
        Located {
            value,
            span: self.span.clone(),
            source: self.source.clone(),
        }
    }

    /// Takes place and value apart.
    pub(super) fn apart(self) -> (Located<()>, T) {
        (self.with(()), self.value)
    }
}

impl Source {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self {
            file: Arc::new(file.to_path_buf()),
            text: Arc::from(text),
        }
    }

    pub(super) fn problem(&self, span: Range<usize>, message: String) -> Problem {
        Problem {
            file: self.file.to_path_buf(),
            text: Arc::clone(&self.text),
            span,
            message,
            help: None,
        }
    }
}

/// A table whose keys are taken one by one; what is left over is unknown.
pub(super) struct Table<'i, 'p> {
    entries: BTreeMap<String, (Range<usize>, Spanned<DeValue<'i>>)>,
    known: Vec<&'static str>,
    span: Range<usize>,
    source: Source,
    problems: &'p mut Vec<Problem>,
}

impl<'i, 'p> Table<'i, 'p> {
    pub(super) fn new(
        table: DeTable<'i>,
        span: Range<usize>,
        source: &Source,
        problems: &'p mut Vec<Problem>,
    ) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| {
                let span = key.span();
                (key.into_inner().into_owned(), (span, value))
            })
            .collect();
        Self {
            entries,
            known: Vec::new(),
            span,
            source: source.clone(),
            problems,
        }
    }

    /// Notes what was not taken. Every table ends with this.
    pub(super) fn finish(self) {
        for (key, (span, _)) in self.entries {
            let mut problem = self.source.problem(span, format!("unknown key `{key}`"));
            problem.help = Some(format!("known here: {}", self.known.join(", ")));
            self.problems.push(problem);
        }
    }

    pub(super) fn located<T>(&self, value: T) -> Located<T> {
        Located {
            value,
            span: self.span.clone(),
            source: self.source.clone(),
        }
    }

    pub(super) fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub(super) fn missing(&mut self, key: &str) {
        let problem = self
            .source
            .problem(self.span.clone(), format!("`{key}` is missing"));
        self.problems.push(problem);
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.entries.remove(key).map(|(_, value)| value)
    }

    fn wrong(&mut self, key: &str, expected: &str, value: &Spanned<DeValue<'i>>) {
        let found = describe(value.get_ref());
        let message = format!("`{key}` is {found}, expected {expected}");
        let problem = self.source.problem(value.span(), message);
        self.problems.push(problem);
    }

    fn text_of(&mut self, key: &str, value: Spanned<DeValue<'i>>) -> Option<Located<String>> {
        let span = value.span();
        if !matches!(value.get_ref(), DeValue::String(_)) {
            self.wrong(key, "a string", &value);
            return None;
        }
        let DeValue::String(text) = value.into_inner() else {
            return None;
        };
        Some(Located {
            value: text.into_owned(),
            span,
            source: self.source.clone(),
        })
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<Located<String>> {
        let value = self.take(key)?;
        self.text_of(key, value)
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<Located<u32>> {
        let value = self.take(key)?;
        self.number_of(key, &value)
    }

    /// Takes `true` or `false`.
    pub(super) fn truth(&mut self, key: &'static str) -> Option<Located<bool>> {
        let value = self.take(key)?;
        if let DeValue::Boolean(truth) = value.get_ref() {
            return Some(Located {
                value: *truth,
                span: value.span(),
                source: self.source.clone(),
            });
        }
        self.wrong(key, "true or false", &value);
        None
    }

    fn number_of(&mut self, key: &str, value: &Spanned<DeValue<'i>>) -> Option<Located<u32>> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if let Some(number) = number {
            return Some(Located {
                value: number,
                span: value.span(),
                source: self.source.clone(),
            });
        }
        self.wrong(key, "a number from 0 to 4294967295", value);
        None
    }

    fn array(&mut self, key: &'static str, expected: &str) -> Vec<Spanned<DeValue<'i>>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        if !matches!(value.get_ref(), DeValue::Array(_)) {
            self.wrong(key, expected, &value);
            return Vec::new();
        }
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes a list of strings; a key that is absent is an empty list.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<Located<String>> {
        self.array(key, "a list of strings")
            .into_iter()
            .filter_map(|value| self.text_of(key, value))
            .collect()
    }

    /// Takes a list of strings, or notices that there is none.
    pub(super) fn optional_strings(&mut self, key: &'static str) -> Option<Vec<Located<String>>> {
        let there = self.entries.contains_key(key);
        let strings = self.strings(key);
        there.then_some(strings)
    }

    /// Takes a list of numbers; a key that is absent is an empty list.
    pub(super) fn numbers(&mut self, key: &'static str) -> Vec<Located<u32>> {
        self.array(key, "a list of numbers")
            .into_iter()
            .filter_map(|value| self.number_of(key, &value))
            .collect()
    }

    /// Takes a list of tables, handing each to `read`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'i, '_>) -> Option<T>,
    ) -> Vec<T> {
        self.array(key, "a list of tables")
            .into_iter()
            .filter_map(|value| self.child(key, value, &mut read))
            .collect()
    }

    /// Takes a table, handing it to `read`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'i, '_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        self.child(key, value, &mut read)
    }

    /// Takes a table of strings under names of the author's choice.
    pub(super) fn map(&mut self, key: &'static str) -> Vec<(Located<String>, Located<String>)> {
        self.table(key, |table| {
            let mut pairs = Vec::new();
            for (name, (span, value)) in std::mem::take(&mut table.entries) {
                let located = Located {
                    value: name.clone(),
                    span,
                    source: table.source.clone(),
                };
                if let Some(text) = table.text_of(&name, value) {
                    pairs.push((located, text));
                }
            }
            Some(pairs)
        })
        .unwrap_or_default()
    }

    /// Takes a table of settings: texts and numbers under dotted names, quoted or not.
    pub(super) fn settings(
        &mut self,
        key: &'static str,
    ) -> Vec<(Located<String>, Located<String>)> {
        self.table(key, |table| {
            let mut pairs = Vec::new();
            table.flatten("", &mut pairs);
            Some(pairs)
        })
        .unwrap_or_default()
    }

    fn flatten(&mut self, prefix: &str, pairs: &mut Vec<(Located<String>, Located<String>)>) {
        for (name, (span, value)) in std::mem::take(&mut self.entries) {
            let name = format!("{prefix}{name}");
            let located = |value: String, span: Range<usize>| Located {
                value,
                span,
                source: self.source.clone(),
            };
            let place = value.span();
            match value.get_ref() {
                DeValue::String(text) => {
                    let text = located(text.to_string(), place);
                    pairs.push((located(name, span), text));
                }
                DeValue::Integer(number) if number.radix() == 10 => {
                    let text = located(number.as_str().to_owned(), place);
                    pairs.push((located(name, span), text));
                }
                DeValue::Table(_) => {
                    let DeValue::Table(inner) = value.into_inner() else {
                        continue;
                    };
                    let mut inner = Table::new(inner, place, &self.source, self.problems);
                    inner.flatten(&format!("{name}."), pairs);
                }
                _ => self.wrong(&name, "a string or a number", &value),
            }
        }
    }

    fn child<T>(
        &mut self,
        key: &str,
        value: Spanned<DeValue<'i>>,
        read: &mut impl FnMut(&mut Table<'i, '_>) -> Option<T>,
    ) -> Option<T> {
        let span = value.span();
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            self.wrong(key, "a table", &value);
            return None;
        }
        let DeValue::Table(table) = value.into_inner() else {
            return None;
        };
        let mut table = Table::new(table, span, &self.source, self.problems);
        let outcome = read(&mut table);
        table.finish();
        outcome
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
