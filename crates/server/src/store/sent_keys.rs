//! Deduplication keys of stored messages, as a store keeps them.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};

use crate::store::{ids::StreamId, origin::MessageOrigin};

/// The hash of a deduplication key: the first 16 bytes of its SHA-256. Keys of any length take the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyHash([u8; Self::BYTES]);

impl KeyHash {
    const BYTES: usize = 16;

    /// The hash of a key.
    pub fn of(key: &str) -> Self {
        let (mut bytes, hash) = ([0; Self::BYTES], Sha256::digest(key.as_bytes()));
        bytes.copy_from_slice(&hash[..Self::BYTES]);
        Self(bytes)
    }
}

/// The deduplication key of a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentKey {
    /// The stream of its queue.
    pub(crate) queue: StreamId,
    pub(crate) key: KeyHash,
    /// The id of the message.
    pub(crate) id: MessageOrigin,
    /// The end of its window, in Unix milliseconds.
    pub(crate) until_ms: i64,
}

impl SentKey {
    const BYTES: usize = 4 + KeyHash::BYTES + MessageOrigin::BYTES + 8;

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.queue.0.to_le_bytes());
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&self.until_ms.to_le_bytes());
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let (queue, rest) = bytes.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let queue = StreamId(u32::from_le_bytes(*queue));
        let (key, id) = (KeyHash(*key), MessageOrigin::from_bytes(*id));
        Some(Self { queue, key, id, until_ms: i64::from_le_bytes(rest.try_into().ok()?) })
    }
}

/// The deduplication keys of one commit. As bytes they take 46 for each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SentKeys(pub(crate) Vec<SentKey>);

impl SentKeys {
    /// The end of the last window, in Unix milliseconds. Nothing of the keys is needed after it.
    #[cfg(any(feature = "disk", feature = "postgres"))]
    pub(crate) fn until_ms(&self) -> i64 {
        self.0.iter().map(|key| key.until_ms).max().unwrap_or(i64::MIN)
    }

    /// The keys as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * SentKey::BYTES);
        self.0.iter().for_each(|key| key.put(&mut bytes));
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` for other bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (keys, rest) = (bytes.chunks_exact(SentKey::BYTES), bytes.len() % SentKey::BYTES);
        if rest != 0 {
            return None;
        }
        keys.map(SentKey::take).collect::<Option<_>>().map(Self)
    }
}

impl Serialize for SentKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for SentKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)?;
        Self::from_bytes(&bytes).ok_or_else(|| D::Error::custom("the deduplication keys are cut off"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::FirstPlace;

    #[test]
    fn keys_are_read_as_they_were_written() {
        let key = |key: &str, until_ms| SentKey {
            queue: StreamId(7),
            key: KeyHash::of(key),
            id: MessageOrigin::new("9bf46390-38a2", FirstPlace::Queue, 17, 1_795_550_351_698),
            until_ms,
        };
        let keys = SentKeys(vec![key("a", 5), key("", 9), key(&"long ".repeat(900), -1)]);
        assert_eq!(keys.until_ms(), 9);
        let written = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<SentKeys>(&written).unwrap(), keys);
        assert_eq!(SentKeys::from_bytes(&keys.to_bytes()[1..]), None);
        assert!(serde_json::from_str::<SentKeys>("\"AAAA\"").is_err());
        assert_ne!(KeyHash::of("a"), KeyHash::of("b"));
    }
}
