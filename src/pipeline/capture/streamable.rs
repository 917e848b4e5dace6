//! What the set-up of a job's stream results in.

/// The publication of a stream that has omitted no change of the job's table since the slot's confirmed position.
pub struct Unbroken(pub(super) String);

/// Slot and publication as a job streams from them.
pub struct Streamable {
    /// The name of the publication.
    pub publication: String,
    /// Whether no change was omitted since the slot's confirmed position. Otherwise existing rows have to be scanned.
    pub unbroken: bool,
}
