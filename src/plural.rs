//! The form of a word that goes with a number.

/// `one` for 1, and otherwise `many`.
///
/// ```
/// use lantern::plural::form;
///
/// let said = |rows: u64| format!("{rows} {}", form(rows, "row", "rows"));
/// assert_eq!(said(1), "1 row");
/// assert_eq!(said(0), "0 rows");
/// ```
pub fn form<'a, N: PartialEq + From<u8>>(number: N, one: &'a str, many: &'a str) -> &'a str {
    match number == N::from(1) {
        true => one,
        false => many,
    }
}
