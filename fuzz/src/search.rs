//! What is looked for in events, and bodies that it is looked for in.

use doorbell_core::search::{Search, read_body};

/// The first line is a question, the rest a body. What a body says is found in it.
pub(crate) fn search(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (question, body) = data.split_at(end);
    let question = String::from_utf8_lossy(question);
    let mut texts = Vec::new();
    read_body(body, |text| texts.push(text.to_owned()));
    if let Ok(search) = Search::parse(&question) {
        let mut looking = search.begin();
        texts.iter().for_each(|text| looking.read(text));
        assert!(looking.is_complete() || !search.is_empty());
        looking.read(&question.replace('"', " "));
    }
    for text in texts.iter().filter(|text| !text.contains('"')).take(8) {
        if let Ok(search) = Search::parse(&format!("\"{text}\"")) {
            let mut looking = search.begin();
            looking.read(text);
            assert!(looking.is_complete(), "{text:?}");
        }
    }
}
