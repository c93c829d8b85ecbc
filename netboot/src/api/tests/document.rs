//! The `OpenAPI` document.

use serde_json::Value;

use crate::api::openapi::document;

/// Where it is kept: `UPDATE_GOLDEN=1` writes it anew, to be read in review.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_document_is_the_one_that_was_reviewed() {
    let document = document();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &document).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        document == golden,
        "the API has changed: UPDATE_GOLDEN=1 writes `{GOLDEN}`"
    );
}

#[test]
fn every_call_has_a_name_of_its_own() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let calls = document["paths"].as_object().unwrap().values();
    let calls = calls.flat_map(|path| path.as_object().unwrap().values());
    let mut names = std::collections::BTreeSet::new();
    for call in calls {
        let name = call["operationId"].as_str().unwrap();
        assert!(names.insert(name), "two calls are named `{name}`");
    }
}

#[test]
fn everything_in_the_document_is_described() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(call["summary"].is_string(), "{at} has no summary");
            for parameter in call["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{at}: {parameter}");
            }
            let answers = call["responses"].as_object().unwrap();
            assert!(
                answers.values().all(|one| one["description"].is_string()),
                "{at}"
            );
            if path != "/v1/openapi.json" {
                assert!(call["security"][0]["token"][0].is_string(), "{at} is open");
                for status in ["401", "403", "429"] {
                    let content = &answers[status]["content"];
                    assert!(
                        content["application/problem+json"].is_object(),
                        "{at} {status}"
                    );
                }
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        for (field, about) in schema["properties"].as_object().into_iter().flatten() {
            let either = about["oneOf"].as_array().into_iter().flatten();
            let told = either
                .chain([about])
                .any(|one| one["description"].is_string());
            assert!(
                told || about["$ref"].is_string(),
                "`{field}` of {name} is not described"
            );
        }
    }
    let text = document.to_string();
    let references = text.match_indices("#/components/schemas/");
    for (at, reference) in references {
        let name: String = text[at + reference.len()..]
            .chars()
            .take_while(|one| *one != '"')
            .collect();
        assert!(
            schemas.contains_key(&name),
            "`{name}` is referred to and not there"
        );
    }
}
