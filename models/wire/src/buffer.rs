//! Room for long payloads.

/// Buffers beyond this are long.
const LONG: usize = 1 << 20;

/// What is larger than 32 MiB glibc maps by itself, and gives back when it is freed. The first smaller block that it had mapped and
/// that is freed makes it keep all blocks up to that size from then on, and twice as much of what is free: for payloads of
/// many MB that is more memory than all that is in use.
const MAPPED: usize = 33 << 20;

/// An empty buffer for `size` bytes. The room a long one has beyond them costs nothing until it is written to.
pub(crate) fn buffer(size: usize) -> Vec<u8> {
    Vec::with_capacity(if size > LONG { size.max(MAPPED) } else { size })
}
