//! Reading of TOML tables by hand, so that every wrong key and value is told, not only the first.
//!
//! It refuses to know what a site is; `check` asks it for keys.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Location, Parameter, Problem, ProblemKind, SourceFile};

/// A span of one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) span: Range<usize>,
}

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Everything that is wrong so far; places become lines and columns only here.
#[derive(Debug)]
pub(super) struct Problems<'f> {
    files: &'f [SourceFile],
    found: Vec<Found>,
    advice: Vec<Found>,
}

type Found = (Place, ProblemKind, Option<Place>);

impl<'f> Problems<'f> {
    pub(super) fn new(files: &'f [SourceFile]) -> Self {
        Self {
            files,
            found: Vec::new(),
            advice: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, place: &Place, kind: ProblemKind) {
        self.found.push((place.clone(), kind, None));
    }

    /// Says what is allowed and should be looked at.
    pub(super) fn advise(&mut self, place: &Place, text: String) {
        let advice = ProblemKind::Advice(text);
        self.advice.push((place.clone(), advice, None));
    }

    pub(super) fn contradiction(&mut self, place: &Place, text: String) {
        self.add(place, ProblemKind::Contradiction(text));
    }

    pub(super) fn duplicate(&mut self, place: &Place, first: &Place, what: String) {
        let kind = ProblemKind::Duplicate { what };
        self.found.push((place.clone(), kind, Some(first.clone())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns all problems in the order of the files.
    pub(super) fn finish(self) -> Vec<Problem> {
        locate(self.files, self.found)
    }

    /// Finds a place in its file.
    pub(super) fn locate(&self, place: &Place) -> Location {
        location(self.files, place)
    }

    /// Returns all advice in the order of the files.
    pub(super) fn into_advice(self) -> Vec<Problem> {
        locate(self.files, self.advice)
    }
}

fn location(files: &[SourceFile], place: &Place) -> Location {
    match files.get(place.file) {
        Some(file) => Location::of(file, place.span.clone()),
        None => Location {
            path: "site".into(),
            line: 1,
            column: 1,
            span: 0..0,
        },
    }
}

fn locate(files: &[SourceFile], mut found: Vec<Found>) -> Vec<Problem> {
    found.sort_by_key(|(place, ..)| (place.file, place.span.start));
    let locate = |place: &Place| location(files, place);
    found
        .iter()
        .map(|(place, kind, first)| Problem {
            location: locate(place),
            kind: kind.clone(),
            first: first.as_ref().map(locate),
        })
        .collect()
}

/// A TOML table that is asked for its keys; what is not asked for is unknown.
#[derive(Debug)]
pub(super) struct Table<'a> {
    /// What it is, for people: "[[host]] `web1`".
    pub(super) title: String,
    pub(super) place: Place,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(title: impl Into<String>, place: Place, entries: &'a DeTable<'a>) -> Self {
        Self {
            title: title.into(),
            place,
            entries,
            known: Vec::new(),
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    fn at(&self, span: Range<usize>) -> Place {
        let file = self.place.file;
        Place { file, span }
    }

    /// Takes a key of any form, and reads it with a function that says what was expected.
    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<Placed<T>> {
        let found = self.get(key)?;
        let place = self.at(found.span());
        let Some(value) = read(found.get_ref()) else {
            problems.add(&place, wrong_type(key, expected, found.get_ref()));
            return None;
        };
        Some(Placed { value, place })
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Placed<String>> {
        self.read(key, "a string", problems, |value| {
            value.as_str().map(str::to_owned)
        })
    }

    pub(super) fn truth(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Placed<bool>> {
        self.read(key, "true or false", problems, DeValue::as_bool)
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Placed<i64>> {
        self.read(key, "an integer", problems, |value| {
            let integer = value.as_integer()?;
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })
    }

    /// Takes a whole number of a range.
    pub(super) fn count<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let found = self.integer(key, problems)?;
        let value = range.contains(&found.value).then_some(found.value);
        let value = value.and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            let (key, first, last) = (key.to_owned(), range.start(), range.end());
            let reason = format!("{} is not {first} to {last}", found.value);
            problems.add(&found.place, ProblemKind::BadValue { key, reason });
        }
        value
    }

    /// Takes a string and parses it.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Placed<T>> {
        let text = self.text(key, problems)?;
        parse(key, &text, problems)
    }

    /// Takes a list of strings and parses each.
    pub(super) fn list<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<Placed<T>> {
        let Some(found) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = found.get_ref().as_array() else {
            let place = self.at(found.span());
            problems.add(
                &place,
                wrong_type(key, "a list of strings", found.get_ref()),
            );
            return Vec::new();
        };
        let mut values = Vec::with_capacity(array.len());
        for item in array {
            let place = self.at(item.span());
            match item.get_ref().as_str() {
                Some(text) => {
                    let text = Placed {
                        value: text.to_owned(),
                        place,
                    };
                    values.extend(parse(key, &text, problems));
                }
                None => problems.add(&place, wrong_type(key, "a list of strings", item.get_ref())),
            }
        }
        values
    }

    /// Takes a table.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Table<'a>> {
        let found = self.get(key)?;
        let place = self.at(found.span());
        let Some(table) = found.get_ref().as_table() else {
            problems.add(&place, wrong_type(key, "a table", found.get_ref()));
            return None;
        };
        Some(Self::new(format!("[{key}]"), place, table))
    }

    /// Takes a table of tables, such as `[role.web]`, with their names.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<(Placed<String>, Table<'a>)> {
        let Some(all) = self.table(key, problems) else {
            return Vec::new();
        };
        let mut named = Vec::new();
        for (name, found) in all.entries {
            let name = Placed {
                place: self.at(name.span()),
                value: name.get_ref().to_string(),
            };
            let title = format!("[{key}.{}]", name.value);
            match found.get_ref().as_table() {
                Some(table) => {
                    let table = Self::new(title, self.at(found.span()), table);
                    named.push((name, table));
                }
                None => problems.add(&name.place, wrong_type(&title, "a table", found.get_ref())),
            }
        }
        named
    }

    /// Takes a table of values under names that the operator chose.
    fn chosen(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<(Placed<String>, Placed<&'a DeValue<'a>>)> {
        let Some(table) = self.table(key, problems) else {
            return Vec::new();
        };
        let chosen = table.entries.iter().map(|(name, found)| {
            let name = Placed {
                place: table.at(name.span()),
                value: name.get_ref().to_string(),
            };
            let place = table.at(found.span());
            let value = found.get_ref();
            (name, Placed { value, place })
        });
        chosen.collect()
    }

    /// Takes a table of strings, and parses each name and value.
    pub(super) fn pairs<K: FromStr<Err: Display>, V: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<(Placed<K>, Placed<V>)> {
        let mut pairs = Vec::new();
        for (name, found) in self.chosen(key, problems) {
            let Some(text) = found.value.as_str() else {
                problems.add(
                    &found.place,
                    wrong_type(&name.value, "a string", found.value),
                );
                continue;
            };
            let text = Placed {
                value: text.to_owned(),
                place: found.place,
            };
            let value = parse(&name.value, &text, problems);
            let name = parse(key, &name, problems);
            pairs.extend(name.zip(value));
        }
        pairs
    }

    /// Takes a table of plain values.
    pub(super) fn parameters(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<(Placed<String>, Placed<Parameter>)> {
        let mut parameters = Vec::new();
        for (name, found) in self.chosen(key, problems) {
            let value = match found.value {
                DeValue::String(text) => Some(Parameter::Text(text.as_ref().into())),
                DeValue::Boolean(truth) => Some(Parameter::Truth(*truth)),
                DeValue::Integer(integer) => {
                    let value = i64::from_str_radix(integer.as_str(), integer.radix());
                    value.ok().map(Parameter::Integer)
                }
                _ => None,
            };
            let place = found.place;
            if let Some(value) = value {
                parameters.push((name, Placed { value, place }));
            } else {
                let expected = "a string, an integer, true or false";
                problems.add(&place, wrong_type(&name.value, expected, found.value));
            }
        }
        parameters
    }

    /// Takes a list of tables, such as `[[host]]`.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Vec<Table<'a>> {
        let Some(found) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = found.get_ref().as_array() else {
            let place = self.at(found.span());
            problems.add(&place, wrong_type(key, "a list of tables", found.get_ref()));
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(array.len());
        for item in array {
            let place = self.at(item.span());
            match item.get_ref().as_table() {
                Some(table) => tables.push(Self::new(format!("[[{key}]]"), place, table)),
                None => problems.add(&place, wrong_type(key, "a list of tables", item.get_ref())),
            }
        }
        tables
    }

    /// Tells whether a key is given, readable or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    /// Says that a key is missing, when its value is.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        value: Option<T>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        // A value of the wrong kind was told already.
        if value.is_none() && !self.has(key) {
            let table = self.title.clone();
            problems.add(&self.place, ProblemKind::MissingKey { key, table });
        }
        value
    }

    /// Says which keys no one asked for.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let kind = ProblemKind::UnknownKey {
                    key: name.to_owned(),
                    table: self.title.clone(),
                    known: self.known.clone(),
                };
                problems.add(&self.at(key.span()), kind);
            }
        }
    }
}

fn wrong_type(key: &str, expected: &'static str, found: &DeValue<'_>) -> ProblemKind {
    ProblemKind::WrongType {
        key: key.to_owned(),
        expected,
        found: match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        },
    }
}

pub(super) fn parse<T: FromStr<Err: Display>>(
    key: &str,
    text: &Placed<String>,
    problems: &mut Problems<'_>,
) -> Option<Placed<T>> {
    match text.value.parse() {
        Ok(value) => Some(Placed {
            value,
            place: text.place.clone(),
        }),
        Err(error) => {
            let kind = ProblemKind::BadValue {
                key: key.to_owned(),
                reason: format!("{error}"),
            };
            problems.add(&text.place, kind);
            None
        }
    }
}
