//! What an SQLSTATE means for us: the one table of them.
//!
//! A server reports every error with a code of five characters. The first two are its class (PostgreSQL manual,
//! appendix "PostgreSQL Error Codes"). Four answers are enough for everything that this program does with an error:
//!
//! ```text
//!                       ┌ Outage     the server or the way to it is in trouble     ┐ transient: retry
//! SQLSTATE ──classify──▶┤ Conflict   another session is in the way                 ┘
//!                       ├ Row        the data of one row: quarantine that row      ┐ permanent: a person has
//!                       └ Permanent  the statement, the settings or the rights     ┘ to change something
//! ```
//!
//! The function is total. A code comes from the network, so it may have one byte, none, or bytes of any alphabet.

use tokio_postgres::error::SqlState;

use SqlStateClass::{Conflict, Outage, Permanent, Row};

/// What to do about an error that a server reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlStateClass {
    /// The server or the way to it is in trouble, whatever the statement was. Retry.
    Outage,
    /// Another session is in the way, or the server is in a state that passes. Retry.
    Conflict,
    /// The data of one row was refused. Other rows may well succeed.
    Row,
    /// The same statement fails again until a person changes something.
    Permanent,
}

impl SqlStateClass {
    /// Whether the same statement may succeed later without a change by a person.
    pub fn is_transient(self) -> bool {
        matches!(self, Outage | Conflict)
    }
}

/// The class of an error, by its code.
///
/// ```
/// use lantern::postgres::sqlstate::{SqlStateClass, classify};
/// use tokio_postgres::error::SqlState;
///
/// assert_eq!(classify(&SqlState::ADMIN_SHUTDOWN), SqlStateClass::Outage);
/// assert!(classify(&SqlState::T_R_DEADLOCK_DETECTED).is_transient());
/// assert!(!classify(&SqlState::UNDEFINED_TABLE).is_transient());
/// // No server should send this code, but one may.
/// assert_eq!(classify(&SqlState::from_code("é")), SqlStateClass::Permanent);
/// ```
pub fn classify(code: &SqlState) -> SqlStateClass {
    match code.code().as_bytes() {
        // The members of transient classes that do not pass by themselves.
        b"57P04" => Permanent, // database_dropped
        b"58P01" => Permanent, // undefined_file: a library or a file of the database is missing
        b"58P02" => Permanent, // duplicate_file

        // Connection Exception. PgBouncer reports every trouble of its own as 08P01: the server is down, no connection free.
        [b'0', b'8', _, _, _] => Outage,
        [b'5', b'3', _, _, _] => Outage, // Insufficient Resources: connections, memory, disk space
        [b'5', b'7', _, _, _] => Outage, // Operator Intervention: canceled, shutting down, starting up
        [b'5', b'8', _, _, _] => Outage, // System Error: input and output of the server

        [b'4', b'0', _, _, _] => Conflict, // Transaction Rollback: deadlock, serialization failure
        b"55P03" => Conflict,              // lock_not_available, after lock_timeout
        b"55006" => Conflict,              // object_in_use: another walsender still holds the slot
        b"25006" => Conflict, // read_only_sql_transaction: a standby, until it is promoted
        b"25P03" => Conflict, // idle_in_transaction_session_timeout

        [b'2', b'2', _, _, _] => Row, // Data Exception
        [b'2', b'3', _, _, _] => Row, // Integrity Constraint Violation
        [b'2', b'7', _, _, _] => Row, // Triggered Data Change Violation
        [b'4', b'4', _, _, _] => Row, // WITH CHECK OPTION Violation
        [b'5', b'4', _, _, _] => Row, // Program Limit Exceeded, such as an index row that is too long
        [b'P', b'0', _, _, _] => Row, // PL/pgSQL Error: RAISE in a trigger

        _ => Permanent,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class_of(code: &str) -> SqlStateClass {
        classify(&SqlState::from_code(code))
    }

    #[test]
    fn each_class_of_the_appendix_has_its_answer() {
        for (codes, class) in [
            (
                &[
                    "08000", "08006", "08P01", "53100", "53300", "57014", "57P01", "57P03", "57P05",
                ][..],
                Outage,
            ),
            (&["58000", "58030"], Outage),
            (
                &["40001", "40P01", "55P03", "55006", "25006", "25P03"],
                Conflict,
            ),
            (&["22021", "23505", "27000", "44000", "54000", "P0001"], Row),
            (&["28P01", "3D000", "42501", "42704", "55000"], Permanent),
            (&["0A000", "25P02", "26000", "XX000", "XX001"], Permanent),
        ] {
            for code in codes {
                assert_eq!(class_of(code), class, "{code}");
            }
        }
    }

    #[test]
    fn a_dropped_database_and_a_missing_or_duplicate_file_are_permanent() {
        for code in ["57P04", "58P01", "58P02"] {
            assert_eq!(class_of(code), Permanent, "{code}");
        }
    }

    #[test]
    fn outages_and_conflicts_are_the_transient_ones() {
        let transient = [Outage, Conflict, Row, Permanent].map(SqlStateClass::is_transient);
        assert_eq!(transient, [true, true, false, false]);
    }

    #[test]
    fn a_code_that_is_not_five_characters_is_permanent() {
        for code in [
            "",
            "0",
            "5",
            "08",
            "57P0",
            "57P011",
            "é",
            "08é",
            "ééééé",
            "08\0",
        ] {
            assert_eq!(class_of(code), Permanent, "{code:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_has_a_class(code in ".*") {
            let _ = class_of(&code).is_transient();
        }

        /// The bytes of an ErrorResponse, as a client makes text of them.
        #[test]
        fn all_bytes_have_a_class(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let code = String::from_utf8_lossy(&bytes);
            prop_assert!(code.len() == 5 || class_of(&code) == Permanent);
        }
    }
}
