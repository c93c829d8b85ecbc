//! The paragraph format of Debian's control files, indexes and apt sources, borrowed from the text.
//!
//! It refuses nothing: lines that are no field are passed over, as apt does with what it does not know.
//! What a field means is decided by its reader.

/// One paragraph: fields up to the next empty line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stanza<'a> {
    text: &'a str,
}

impl<'a> Stanza<'a> {
    /// Takes the first paragraph of a text.
    #[must_use]
    pub fn first(text: &'a str) -> Self {
        stanzas(text).next().unwrap_or(Self { text: "" })
    }

    /// Returns the paragraph as it was written.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the value of the first field of that name, without regard to case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Goes through names and values in order.
    ///
    /// A value of several lines keeps its line ends and its leading blanks.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.text }
    }
}

/// Goes through the paragraphs of a text.
#[must_use]
pub fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { rest: text }
}

/// Iterator over paragraphs, see [`stanzas`].
#[derive(Clone, Debug)]
pub struct Stanzas<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = Stanza<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((line, rest)) = split_line(self.rest) {
            if !is_blank(line) {
                break;
            }
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest;
        let mut length = 0;
        while let Some((line, rest)) = split_line(&start[length..]) {
            if is_blank(line) {
                break;
            }
            length = start.len() - rest.len();
        }
        self.rest = &start[length..];
        Some(Stanza {
            text: &start[..length],
        })
    }
}

/// Iterator over the fields of a paragraph, see [`Stanza::fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, mut rest) = split_line(self.rest)?;
            let start = self.rest;
            if is_continuation(line) || line.starts_with('#') {
                self.rest = rest;
                continue;
            }
            let Some(colon) = line.find(':') else {
                self.rest = rest;
                continue;
            };
            while let Some((more, after)) = split_line(rest) {
                if !is_continuation(more) {
                    break;
                }
                rest = after;
            }
            self.rest = rest;
            let end = start.len() - rest.len();
            return Some((&line[..colon], start[colon + 1..end].trim()));
        }
    }
}

fn split_line(text: &str) -> Option<(&str, &str)> {
    if text.is_empty() {
        return None;
    }
    Some(
        match text.as_bytes().iter().position(|byte| *byte == b'\n') {
            Some(end) => (&text[..end], &text[end + 1..]),
            None => (text, ""),
        },
    )
}

fn is_blank(line: &str) -> bool {
    line.bytes()
        .all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

fn is_continuation(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\n\n# a note\nPackage: bash\nDescription: the shell\n a long\n .\n text\nEmpty:\n \nTypes : x\n\n \nPackage: dash\r\nrubbish\nVersion: 1:2-3";

    #[test]
    fn paragraphs_and_fields_are_borrowed_in_order() {
        let stanzas: Vec<_> = stanzas(TEXT).collect();
        assert_eq!(stanzas.len(), 3);
        let fields: Vec<_> = stanzas[0].fields().collect();
        assert_eq!(
            fields,
            [
                ("Package", "bash"),
                ("Description", "the shell\n a long\n .\n text"),
                ("Empty", ""),
            ]
        );
        assert_eq!(stanzas[2].field("package"), Some("dash"));
        assert_eq!(stanzas[2].field("VERSION"), Some("1:2-3"));
        assert_eq!(stanzas[2].field("Size"), None);
        assert_eq!(Stanza::first("").fields().count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a:# \n\t\r\u{e9}]{0,80}") {
            let mut fields = 0;
            for stanza in stanzas(&text) {
                prop_assert!(!stanza.text().is_empty());
                fields += stanza.fields().count();
            }
            prop_assert!(fields <= text.len());
        }
    }
}
