//! What goes wrong inside the database, and which of the store's two errors it is.

use rusqlite::ErrorCode;

use crate::store::Error;

/// A failure inside a transaction.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The database said so.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// A row does not hold what it should.
    #[error("{0}")]
    Corrupt(String),
}

/// What an operation answers inside a transaction.
pub(super) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// Whether the row that was read is at fault, not the database as a whole.
    pub(super) fn is_bad_row(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::Sql(error) => is_conversion(error),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(what) => Self::Corrupt(what),
            Fault::Sql(error) if is_conversion(&error) || is_damage(&error) => Self::Corrupt(error.to_string()),
            Fault::Sql(error) => Self::Unavailable(Box::new(error)),
        }
    }
}

/// A value of the wrong kind where another was written.
fn is_conversion(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
            | E::QueryReturnedNoRows
    )
}

/// The file is no database, or a broken one.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether the machine is at fault, and not what was asked for.
pub(super) fn is_of_machine(error: &rusqlite::Error) -> bool {
    let more = matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory));
    more || asks_for_reopening(error)
}

/// Whether the connection may no longer fit its file, so that a new one is worth a try.
pub(super) fn asks_for_reopening(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}
