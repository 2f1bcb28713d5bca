//! A small cache, bounded in size and time, for what every request asks.

use model::clock::Timestamp;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Values by key, each for a short time.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: Mutex<HashMap<K, (Timestamp, V)>>,
    capacity: usize,
    lifetime: Duration,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache of at most `capacity` values, each for `lifetime`.
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { entries: Mutex::default(), capacity, lifetime }
    }

    /// The value, if it is there and fresh.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Timestamp) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let entries = self.lock();
        let (at, value) = entries.get(key)?;
        // A clock that was set back must not keep a value alive.
        (*at <= now && now.since(*at) < self.lifetime).then(|| value.clone())
    }

    /// Keeps a value. A full cache starts anew: that costs a few lookups and no bookkeeping on each hit.
    pub fn put(&self, key: K, value: V, now: Timestamp) {
        let mut entries = self.lock();
        if entries.len() >= self.capacity && !entries.contains_key(&key) {
            entries.clear();
        }
        entries.insert(key, (now, value));
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Timestamp, V)>> {
        // Every change is a single call on the map, so a panic elsewhere leaves it whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_age_and_are_bounded() {
        let cache = Cache::new(2, Duration::from_secs(1));
        let start = Timestamp(10_000);
        cache.put("a".to_owned(), 1, start);
        assert_eq!(cache.get("a", Timestamp(10_999)), Some(1));
        assert_eq!(cache.get("a", Timestamp(11_000)), None);
        assert_eq!(cache.get("a", Timestamp(9_999)), None);
        cache.put("b".to_owned(), 2, start);
        cache.put("c".to_owned(), 3, start);
        assert_eq!((cache.get("a", start), cache.get("c", start)), (None, Some(3)));
    }
}
