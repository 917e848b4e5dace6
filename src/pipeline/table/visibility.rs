//! Whether a change that the stream brought can be seen by a statement.

/// SQL that is true where the transaction `xid`, a bigint, is visible in the statement's snapshot; 0 stands for a row that
/// a scan has seen.
///
/// The stream carries the lower 32 bits of a transaction id, `pg_visible_in_snapshot` wants all 64 (manual,
/// "Transaction ID and Snapshot Information Functions"). The upper ones are those that bring it nearest to the
/// snapshot's newest. A transaction in the stream is less than 2³¹ older than that, because the slot's `catalog_xmin`
/// keeps catalogs from being frozen beyond it, and a server assigns no further ids that far ahead of what is frozen
/// (manual, "Preventing Transaction ID Wraparound Failures").
pub fn is_visible(xid: &str) -> String {
    let full_xid = format!(
        "((SELECT newest - ((newest - {xid} + 2147483648) & 4294967295) + 2147483648 \
         FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) s)::text::xid8)"
    );
    format!("{xid} = 0 OR pg_visible_in_snapshot({full_xid}, pg_current_snapshot())")
}
