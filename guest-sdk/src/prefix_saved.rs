//! The state that is saved at an upgrade, as bytes.

/// The first byte, which is the format. After it come the size of a block and the number of
/// endpoints, of 4 bytes each, then the ids of the endpoints, of 8 bytes each, and then pairs: a
/// hash of 8 bytes and the number of an endpoint, of 4 bytes. All are little-endian.
pub const FORM: u8 = 1;

/// The endpoints that had each prefix last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Bytes of a block. The hashes are only valid for this size.
    pub(crate) block_size: u32,
    /// The ids of the endpoints, by their number.
    pub(crate) ids: Vec<u64>,
    /// Hashes and numbers of endpoints, the oldest pair first.
    pub(crate) pairs: Vec<(u64, u32)>,
}

impl Saved {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend(self.block_size.to_le_bytes());
        bytes.extend((self.ids.len() as u32).to_le_bytes());
        bytes.extend(self.ids.iter().copied().flat_map(u64::to_le_bytes));
        for (hash, number) in &self.pairs {
            bytes.extend(hash.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// Reads the bytes. `None` if they are in another format, or if the number of an endpoint has
    /// no id.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[FORM])?;
        let (block_size, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let count = u32::from_le_bytes(*count);
        let (ids, rest) = rest.split_at_checked((count as usize).checked_mul(8)?)?;
        let (pairs, []) = rest.as_chunks::<12>() else {
            return None;
        };
        let pair = |bytes: &[u8; 12]| {
            let (hash, number) = bytes.split_first_chunk()?;
            let number = u32::from_le_bytes(number.try_into().ok()?);
            (number < count).then_some((u64::from_le_bytes(*hash), number))
        };
        Some(Self {
            block_size: u32::from_le_bytes(*block_size),
            ids: ids
                .as_chunks()
                .0
                .iter()
                .copied()
                .map(u64::from_le_bytes)
                .collect(),
            pairs: pairs.iter().map(pair).collect::<Option<_>>()?,
        })
    }
}
