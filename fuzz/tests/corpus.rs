//! Every input that was ever interesting is taken again: what broke once stays whole.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use doorbell_fuzz::TARGETS;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let mut inputs: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 3, "{name} begins with nothing");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let survived = std::panic::catch_unwind(|| target(&bytes));
            assert!(survived.is_ok(), "{name}: {}", input.display());
        }
        target(b"");
    }
    let folders = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut folders: Vec<String> = folders.collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name.to_owned()), "a folder for each target, and a target for each");
}
