//! Files of a project, read whole: bounded, and UTF-8.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use super::problem::{Layer, Place, Problem, Text};

/// The largest file, in bytes: a configuration is written by people.
const LARGEST: u64 = 1 << 20;

/// Reads the file `name` (with `/`) of the project.
pub(super) fn read(root: &Path, name: &str) -> Result<Arc<Text>, Problem> {
    let unreadable = |why: String| Problem::at(&Place::path(name), format!("cannot read {name}: {why}"));
    // Opening a pipe would wait for a writer.
    if std::fs::metadata(root.join(name)).is_ok_and(|found| !found.is_file()) {
        return Err(unreadable("it is not a file".to_owned()));
    }
    let file = std::fs::File::open(root.join(name)).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(unreadable("it is larger than 1 MiB".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("line {line} is not UTF-8"))
    })?;
    // Editors of some systems put a byte order mark first; places then count from behind it.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Arc::new(Text { layer: Layer::File, name: name.to_owned(), text }))
}

/// Reads the file if it is there.
pub(super) fn read_if_there(root: &Path, name: &str) -> Result<Option<Arc<Text>>, Problem> {
    match std::fs::metadata(root.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read(root, name).map(Some),
    }
}

/// The names of a folder's entries that are not hidden, in order; none at all if there is no such folder.
pub(super) fn names_in(root: &Path, folder: &str) -> Result<Vec<String>, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::at(&Place::path(folder), format!("cannot read {folder}: {error}"));
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
