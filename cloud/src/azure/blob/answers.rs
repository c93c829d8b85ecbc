//! The blobs' interface answers in XML.

use roxmltree::Document;

use super::Seen;
use crate::api::Answer;
use crate::azure::ranges::Ranges;

/// The cloud's XML begins with a byte order mark.
fn text(answer: &Answer) -> Result<&str, String> {
    let text = std::str::from_utf8(&answer.body).map_err(|_| "the answer is no text".to_owned())?;
    Ok(text.trim_start_matches('\u{feff}'))
}

fn marker(document: &Document<'_>) -> Option<String> {
    let root = document.root_element();
    let found = root
        .children()
        .find(|child| child.has_tag_name("NextMarker"));
    let found = found?.text()?.to_owned();
    (!found.is_empty()).then_some(found)
}

pub(super) fn read_ranges(answer: &Answer, found: &mut Ranges) -> Result<Option<String>, String> {
    let document = Document::parse(text(answer)?).map_err(|error| error.to_string())?;
    let ranges = document.root_element().children();
    for range in ranges.filter(|child| child.has_tag_name("PageRange")) {
        let number = |name| {
            let child = range.children().find(|child| child.has_tag_name(name));
            child.and_then(|child| child.text()?.trim().parse::<u64>().ok())
        };
        let (Some(start), Some(end)) = (number("Start"), number("End")) else {
            return Err("a range has no start or end".to_owned());
        };
        let end = end.checked_add(1).filter(|end| *end > start);
        found.add(start..end.ok_or("a range ends before it starts")?);
    }
    Ok(marker(&document))
}

pub(super) fn read_blobs(
    answer: &Answer,
    found: &mut Vec<(String, Seen)>,
) -> Result<Option<String>, String> {
    let document = Document::parse(text(answer)?).map_err(|error| error.to_string())?;
    for blob in document
        .descendants()
        .filter(|node| node.has_tag_name("Blob"))
    {
        let value = |name: &str| {
            let node = blob.descendants().find(|node| node.has_tag_name(name));
            node.and_then(|node| node.text())
                .unwrap_or_default()
                .to_owned()
        };
        let metadata = blob.children().find(|node| node.has_tag_name("Metadata"));
        let notes = metadata.into_iter().flat_map(|node| node.children());
        let notes = notes.filter(roxmltree::Node::is_element).map(|node| {
            let key = node.tag_name().name().to_lowercase();
            (key, node.text().unwrap_or_default().to_owned())
        });
        let seen = Seen {
            pages: value("BlobType") == "PageBlob",
            size: value("Content-Length").parse().unwrap_or_default(),
            sequence: value("x-ms-blob-sequence-number")
                .parse()
                .unwrap_or_default(),
            etag: value("Etag"),
            created: Some(value("Creation-Time")).filter(|time| !time.is_empty()),
            notes: notes.collect(),
        };
        found.push((value("Name"), seen));
    }
    Ok(marker(&document))
}

/// The sentence of a refusal.
pub(super) fn sentence(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let document = Document::parse(text.trim_start_matches('\u{feff}'));
    let message = document.ok().and_then(|document| {
        let node = document
            .descendants()
            .find(|node| node.has_tag_name("Message"));
        node.and_then(|node| node.text()).map(str::to_owned)
    });
    message
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
