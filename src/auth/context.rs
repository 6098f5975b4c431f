//! What all exchanges of the process share: a key drawn at start, and the cache of derived SCRAM keys.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use super::scram::{DEFAULT_ITERATIONS, Keys, SALT_LEN, Verifier, hmac_sha256};
use super::{AuthError, ClientKey, Secret, constant_time_eq, random};

/// Derived keys remembered; about 160 bytes each. Beyond that the oldest half is forgotten and derived again.
const MAX_CACHED_KEYS: usize = 4096;

/// Shared by all workers behind an `Arc`; one for the life of the process, kept over reloads.
pub struct AuthContext {
    /// Drawn at start: cache keys follow from it and say nothing about a password.
    process_key: [u8; 32],
    /// Salts follow from it.
    salts: SaltKey,
    /// What unknown users are made to look like.
    mock: Mutex<Mock>,
    /// The same, taken from users that were looked up in a database: it counts more.
    looked_up: Mutex<Option<LookedUp>>,
    /// Derived keys by (password, salt, iterations), all three hidden in an HMAC.
    cache: Mutex<Cache>,
    /// Iterations of verifiers made from plain passwords.
    iterations: NonZeroU32,
}

/// What salts are made with: of users who do not exist, and of those whose plain password is known.
///
/// Anybody is told salts, by asking to log in. So it must not follow from passwords: who has seen one salt could try
/// passwords against it without asking again. It is a secret of its own, or random.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltKey([u8; 32]);

impl SaltKey {
    /// The shortest secret, in bytes.
    pub const SHORTEST: usize = 16;

    /// From a secret that all pods have; `None`: it is too short.
    pub fn of(secret: &str) -> Option<SaltKey> {
        let enough = secret.len() >= SaltKey::SHORTEST;
        enough.then(|| SaltKey(hmac_sha256(secret.as_bytes(), &[b"pgsluice: salts of SCRAM, 1"])))
    }

    /// Good until the process ends.
    fn drawn() -> Result<SaltKey, AuthError> {
        Ok(SaltKey(random()?))
    }
}

impl std::fmt::Debug for SaltKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltKey(..)")
    }
}

/// The look of an unknown user, taken from the known ones.
#[derive(Clone, Copy)]
pub(super) struct Mock {
    pub(super) kind: MockKind,
    pub(super) iterations: NonZeroU32,
}

/// The look of the users of a database.
#[derive(Clone, Copy)]
struct LookedUp {
    mock: Mock,
    /// Of a real user, not only expected.
    seen: bool,
}

/// Which kind of secret an unknown user pretends to have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MockKind {
    Plain,
    Verifier,
}

#[derive(Default)]
struct Cache {
    recent: HashMap<[u8; 32], Keys>,
    older: HashMap<[u8; 32], Keys>,
}

impl AuthContext {
    /// Draws the process's key. Call [`Self::learn_users`] with the configured users before the first login.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn new() -> Result<AuthContext, AuthError> {
        AuthContext::with(default_iterations(), None)
    }

    /// The same with a number of iterations for verifiers made from plain passwords (`scram_iterations`), and a key for
    /// salts (`scram_salt_file`).
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn with(iterations: NonZeroU32, salts: Option<SaltKey>) -> Result<AuthContext, AuthError> {
        Ok(AuthContext {
            process_key: random()?,
            salts: salts.map_or_else(SaltKey::drawn, Ok)?,
            mock: Mutex::new(Mock { kind: MockKind::Plain, iterations }),
            looked_up: Mutex::new(None),
            cache: Mutex::default(),
            iterations,
        })
    }

    /// Looks at the configured users, so that an unknown user is met with the same exchange and the same cost as
    /// they are: like PostgreSQL's mock authentication. Cheap. Call it again after a reload.
    pub fn learn_users(&self, users: &BTreeMap<String, Secret>) {
        let verifier = users.values().find_map(|secret| match secret {
            Secret::Scram(verifier) => Some(verifier),
            _ => None,
        });
        let mock = match verifier {
            Some(verifier) => Mock { kind: MockKind::Verifier, iterations: verifier.iterations },
            None => Mock { kind: MockKind::Plain, iterations: self.iterations },
        };
        *self.mock.lock().unwrap_or_else(PoisonError::into_inner) = mock;
    }

    /// Users will be looked up in databases, where verifiers are what PostgreSQL makes by default.
    pub fn expect_looked_up(&self) {
        let mock = Mock { kind: MockKind::Verifier, iterations: default_iterations() };
        let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        looked_up.get_or_insert(LookedUp { mock, seen: false });
    }

    /// A user that was looked up: unknown ones are to look alike. Where there are verifiers and MD5 hashes, as verifiers.
    pub fn learn_looked_up(&self, secret: &Secret) {
        let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        match secret {
            Secret::Scram(verifier) => {
                let mock = Mock { kind: MockKind::Verifier, iterations: verifier.iterations };
                *looked_up = Some(LookedUp { mock, seen: true });
            }
            _ if secret.is_empty() || looked_up.is_some_and(|known| known.seen) => {}
            _ => {
                // What plain passwords are shown with.
                let mock = Mock { kind: MockKind::Plain, iterations: self.iterations };
                *looked_up = Some(LookedUp { mock, seen: true });
            }
        }
    }

    /// Derives the keys of up to `limit` plain passwords ahead of the first logins.
    ///
    /// **Expensive**: about a millisecond a user; meant for a blocking thread at start and after a reload. Without it
    /// the first login of each user pays.
    pub fn warm(&self, users: &BTreeMap<String, Secret>, limit: usize) {
        for (user, secret) in users.iter().take(limit) {
            if let Secret::Plain(password) = secret {
                self.keys(password, &self.salt(user), self.iterations);
            }
        }
    }

    /// The salt of a user whose password is kept in the clear, and of a user who does not exist: the same function,
    /// so that an attacker cannot tell one from the other (`scram_mock_salt` in `auth-scram.c`).
    pub(super) fn salt(&self, user: &str) -> [u8; SALT_LEN] {
        let digest = hmac_sha256(&self.salts.0, &[user.as_bytes()]);
        std::array::from_fn(|i| digest[i])
    }

    /// Hides a password for comparison or as a key of a map.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let lengths: Vec<u8> = parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes()).collect();
        let mut all: Vec<&[u8]> = vec![b"tag", &lengths];
        all.extend_from_slice(parts);
        hmac_sha256(&self.process_key, &all)
    }

    /// The look of an unknown user.
    pub(super) fn mock(&self) -> Mock {
        match *self.looked_up.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(known) => known.mock,
            None => *self.mock.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// A verifier that no password fits, for a user who does not exist.
    pub(super) fn mock_verifier(&self, user: &str) -> Verifier {
        Verifier {
            iterations: self.mock().iterations,
            salt: self.salt(user).to_vec(),
            stored_key: hmac_sha256(&self.process_key, &[b"stored", user.as_bytes()]),
            server_key: hmac_sha256(&self.process_key, &[b"server", user.as_bytes()]),
        }
    }

    /// The verifier of a plain password. **Expensive**: a key derivation, unless this password came before.
    pub fn verifier(&self, user: &str, password: &str) -> Verifier {
        let salt = self.salt(user);
        Verifier::from_keys(&self.keys(password, &salt, self.iterations), &salt, self.iterations)
    }

    /// Whether [`Self::verifier`] is cheap.
    pub(super) fn has_verifier(&self, user: &str, password: &str) -> bool {
        self.is_cached(password, &self.salt(user), self.iterations)
    }

    /// Whether [`Self::keys`] is cheap.
    pub(super) fn is_cached(&self, password: &str, salt: &[u8], iterations: NonZeroU32) -> bool {
        let tag = self.key_tag(password, salt, iterations);
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.recent.contains_key(&tag) || cache.older.contains_key(&tag)
    }

    /// Keys of a password, from the cache or derived. **Expensive** unless [`Self::is_cached`]; the lock is not held
    /// meanwhile, so two first logins at once derive twice rather than wait for each other.
    pub(super) fn keys(&self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        let keys = self.keys_unremembered(password, salt, iterations);
        self.remember(password, salt, iterations, &keys);
        keys
    }

    /// The same for a password that may be wrong: it must not push others out of the cache.
    pub(super) fn keys_unremembered(&self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        let tag = self.key_tag(password, salt, iterations);
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&tag);
        cached.unwrap_or_else(|| Keys::derive(password, salt, iterations))
    }

    /// Whether `given` is the password of `verifier` (`scram_verify_plain_password` in `auth-scram.c`); the key that it
    /// gives. **Expensive** unless [`Self::is_checked`].
    pub fn check(&self, verifier: &Verifier, given: &str) -> Option<ClientKey> {
        let keys = self.keys_unremembered(given, &verifier.salt, verifier.iterations);
        if !constant_time_eq(&keys.server_key, &verifier.server_key) {
            return None;
        }
        self.remember(given, &verifier.salt, verifier.iterations, &keys);
        Some(keys.client_key)
    }

    /// Whether [`Self::check`] is cheap.
    pub fn is_checked(&self, verifier: &Verifier, given: &str) -> bool {
        self.is_cached(given, &verifier.salt, verifier.iterations)
    }

    /// Keeps keys for the next time.
    pub(super) fn remember(&self, password: &str, salt: &[u8], iterations: NonZeroU32, keys: &Keys) {
        let tag = self.key_tag(password, salt, iterations);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, keys.clone());
    }

    fn key_tag(&self, password: &str, salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
        self.tag(&[password.as_bytes(), salt, &iterations.get().to_be_bytes()])
    }
}

impl std::fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthContext(..)")
    }
}

/// Two generations: what is used stays, what is not is gone after `MAX_CACHED_KEYS / 2` newer entries.
impl Cache {
    fn get(&mut self, tag: &[u8; 32]) -> Option<Keys> {
        if let Some(keys) = self.recent.get(tag) {
            return Some(keys.clone());
        }
        let keys = self.older.remove(tag)?;
        self.insert(*tag, keys.clone());
        Some(keys)
    }

    fn insert(&mut self, tag: [u8; 32], keys: Keys) {
        if self.recent.len() >= MAX_CACHED_KEYS / 2 {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(tag, keys);
    }
}

/// [`DEFAULT_ITERATIONS`] as PBKDF2 wants it.
fn default_iterations() -> NonZeroU32 {
    NonZeroU32::new(DEFAULT_ITERATIONS).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_derived_once_and_a_changed_password_is_not_served_from_the_cache() {
        let context = AuthContext::new().unwrap();
        assert!(!context.has_verifier("app", "one"));
        let first = context.verifier("app", "one");
        assert!(context.has_verifier("app", "one"));
        assert!(first == context.verifier("app", "one"));
        assert!(!context.has_verifier("app", "two"));
        assert!(first != context.verifier("app", "two"));
    }

    #[test]
    fn strangers_look_like_looked_up_users_with_plain_passwords() {
        let context = AuthContext::with(NonZeroU32::new(256).unwrap(), None).unwrap();
        context.expect_looked_up();
        context.learn_looked_up(&Secret::Plain("secret".into()));
        assert_eq!(context.mock_verifier("nobody").iterations, context.verifier("app", "secret").iterations);
    }

    #[test]
    fn salts_outlive_the_process_with_a_secret_of_their_own() {
        let process = |secret: Option<&str>| {
            AuthContext::with(NonZeroU32::MIN, secret.map(|text| SaltKey::of(text).unwrap())).unwrap()
        };
        let (one, two) = (process(Some("0123456789abcdef")), process(Some("0123456789abcdef")));
        assert_eq!(one.mock_verifier("nobody").salt, two.mock_verifier("nobody").salt);
        assert_eq!(one.verifier("app", "old").salt, two.verifier("app", "new").salt, "whatever the password is");
        assert_ne!(one.salt("app"), one.salt("nobody"));
        assert!(one.mock_verifier("nobody").stored_key != two.mock_verifier("nobody").stored_key);
        assert_ne!(one.salt("nobody"), process(Some("0123456789abcdeF")).salt("nobody"));
        assert_ne!(process(None).salt("nobody"), process(None).salt("nobody"));
        assert!(SaltKey::of("0123456789abcde").is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = Cache::default();
        let keys = Keys::derive("x", b"salt", NonZeroU32::MIN);
        for i in 0..3 * MAX_CACHED_KEYS as u64 {
            cache.insert(std::array::from_fn(|n| i.to_be_bytes()[n % 8]), keys.clone());
        }
        assert!(cache.recent.len() + cache.older.len() <= MAX_CACHED_KEYS);
    }

    #[test]
    fn parts_of_a_tag_cannot_run_into_each_other() {
        let context = AuthContext::new().unwrap();
        assert_ne!(context.tag(&[b"ab", b"c"]), context.tag(&[b"a", b"bc"]));
    }
}
