//! What an agent prints: any bytes have a result, or say why there is none.

use doorbell::config::{ResultFormat, ResultPlace, ResultRule};
use doorbell::runtime::{Answer, Collector};

/// Reads an output by the rules that presets have; the first byte says in how large pieces it comes.
pub(crate) fn answers(data: &[u8]) {
    let Some((size, output)) = data.split_first() else { return };
    for rule in rules() {
        let read = |pieces: usize| {
            let mut collector = Collector::new(rule.clone());
            output.chunks(pieces).for_each(|piece| collector.push(piece));
            collector.finish()
        };
        let whole = read(output.len().max(1));
        let Answer { result, failure, missing, .. } = &whole;
        assert!(result.is_none() || (failure.is_none() && missing.is_none()), "{whole:?}");
        assert!(result.is_some() || failure.is_some() || missing.is_some(), "{whole:?}");
        assert_eq!(read(usize::from(*size).max(1)), whole, "however it comes");
    }
}

fn rules() -> [ResultRule; 3] {
    let rule = ResultRule {
        from: ResultPlace::Stdout,
        format: ResultFormat::Json,
        path: Some("/result".to_owned()),
        only: Vec::new(),
        failed: vec!["/is_error".to_owned(), "Error:".to_owned()],
        reason: vec!["/error/message".to_owned()],
        needs: None,
    };
    let lines = ResultRule {
        format: ResultFormat::JsonLines,
        only: vec![("/type".to_owned(), "result".into())],
        ..rule.clone()
    };
    let text = ResultRule { format: ResultFormat::Text, path: None, needs: Some("Done".to_owned()), ..rule.clone() };
    [rule, lines, text]
}
