//! Why bytes are no message.

/// Why bytes are no message, or a message's tensors are not the run's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes do not begin as a message does.
    #[error("not a FedTT message: {0}")]
    Foreign(&'static str),
    /// A newer or older peer.
    #[error("message of version {found}; this program speaks version {supported}: update the older side")]
    Version {
        /// What the message says.
        found: u8,
        /// What is spoken here.
        supported: u8,
    },
    /// A kind this program does not know.
    #[error("message of unknown kind {0}")]
    Kind(u8),
    /// Damaged on the way.
    #[error("checksum of the {0} is wrong: the message was damaged")]
    Checksum(&'static str),
    /// Not signed by whom it should be, or for another topic, or changed since.
    #[error("signature is wrong: the message is forged, damaged, or was sent elsewhere")]
    Signature,
    /// Bytes that make no signing key.
    #[error("signing key cannot be used: {0}")]
    Key(&'static str),
    /// Larger than allowed.
    #[error("{what} of {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is or claims to be.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Where the bytes are kept they cannot be read: no fault of theirs.
    #[error("the message cannot be read: {0}")]
    Source(String),
    /// The body cannot be decompressed or decoded.
    #[error("{what} not understood: {reason}")]
    Body {
        /// What was to be decoded.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// Another number of tensors than train.
    #[error("{found} tensors, expected {expected}")]
    Count {
        /// Those that train.
        expected: usize,
        /// Those sent.
        found: usize,
    },
    /// A tensor that does not fit its place.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Its name in the layout, or its number.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Chunks that contradict each other.
    #[error("chunk {index} of {count}: {reason}")]
    Chunk {
        /// The chunk.
        index: u32,
        /// How many there are said to be.
        count: u32,
        /// What is wrong.
        reason: &'static str,
    },
}
