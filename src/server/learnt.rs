//! What clients' logins tell of the user of a pool: the newest counts, for logins at the server to come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;

use crate::auth::{ClientKey, Secret, Verifier};

/// What a client has logged in with. Shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// What was known of the user.
    pub secret: Secret,
    /// Where that was a verifier: the key that the client proved to have.
    pub key: Option<ClientKey>,
}

/// A password that PostgreSQL took (`passthrough_auth`). Shown by nothing.
pub struct Vouched {
    /// What fits that password.
    pub verifier: Verifier,
    /// It counts until then (monotonic microseconds).
    pub until_us: u64,
}

/// The newest proof, and the newest password that the server itself took.
#[derive(Default)]
pub struct Learnt {
    proof: ArcSwapOption<Proof>,
    vouched: ArcSwapOption<Vouched>,
    /// Counts doubts: what was tried before one says nothing after it.
    doubts: AtomicU32,
}

impl Learnt {
    /// The newest proof, if there was any.
    pub fn get(&self) -> Option<Arc<Proof>> {
        self.proof.load_full()
    }

    /// Nothing is known any more.
    pub fn forget(&self) {
        self.doubt();
        self.proof.store(None);
    }

    /// The server has refused this: it is tried no more. Whether it was still the newest.
    pub fn refused(&self, tried: &Arc<Proof>) -> bool {
        let newest = self.proof.compare_and_swap(tried, None);
        newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, tried))
    }

    /// How often it was doubted, for [`Self::vouch`].
    pub fn doubts(&self) -> u32 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// What the server took once has to be tried there again.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.vouched.store(None);
    }

    /// The server took the password of this, tried when there were so many `doubts`. Of one that was doubted since, nothing
    /// counts.
    pub fn vouch(&self, vouched: Vouched, doubts: u32) {
        let vouched = Arc::new(vouched);
        self.vouched.store(Some(Arc::clone(&vouched)));
        // A doubt that comes from here on takes it away itself.
        if self.doubts() != doubts {
            self.vouched.compare_and_swap(&vouched, None);
        }
    }

    /// What it took, unless that was too long ago, with what it is logged in to with since.
    pub fn vouched(&self, now_us: u64) -> Option<(Arc<Vouched>, Arc<Proof>)> {
        let vouched = self.vouched.load_full().filter(|vouched| now_us < vouched.until_us)?;
        Some((vouched, self.get()?))
    }

    /// Takes a proof. Whether it is new.
    pub fn learn(&self, mut proof: Proof) -> bool {
        let known = self.get();
        // A client that was let in without a password has no key: the one that fits the same verifier stays.
        if let Some(known) = known.as_deref().filter(|known| proof.key.is_none() && known.secret == proof.secret) {
            proof.key.clone_from(&known.key);
        }
        if known.is_some_and(|known| *known == proof) {
            return false;
        }
        self.proof.store(Some(Arc::new(proof)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts() {
        let learnt = Learnt::default();
        let proof = |password: &str| Proof { secret: Secret::Plain(password.into()), key: None };
        assert!(learnt.get().is_none() && learnt.learn(proof("one")));
        assert!(!learnt.learn(proof("one")) && learnt.learn(proof("two")));
        assert_eq!(learnt.get().unwrap().secret, Secret::Plain("two".into()));
    }

    #[test]
    fn what_a_server_took_counts_for_a_while() {
        let learnt = Learnt::default();
        let vouch = || {
            let verifier = Verifier::derive("one", b"salt", std::num::NonZeroU32::MIN);
            learnt.vouch(Vouched { verifier, until_us: 10 }, learnt.doubts());
        };
        vouch();
        assert!(learnt.vouched(0).is_none(), "there is nothing to log in with");
        learnt.learn(Proof { secret: Secret::Plain("one".into()), key: None });
        assert!(learnt.vouched(9).is_some() && learnt.vouched(10).is_none());
        learnt.doubt();
        assert!(learnt.vouched(9).is_none() && learnt.get().is_some());
        vouch();
        learnt.forget();
        assert!(learnt.vouched(9).is_none() && learnt.get().is_none());
    }

    #[test]
    fn what_was_tried_before_a_doubt_does_not_count_after_it() {
        let learnt = Learnt::default();
        let proof = |password: &str| Proof { secret: Secret::Plain(password.into()), key: None };
        learnt.learn(proof("one"));
        let begun = learnt.doubts();
        // A reload, or a refused server, while the password is tried.
        learnt.doubt();
        let verifier = Verifier::derive("one", b"salt", std::num::NonZeroU32::MIN);
        learnt.vouch(Vouched { verifier, until_us: 10 }, begun);
        assert!(learnt.vouched(9).is_none());
    }

    #[test]
    fn a_refusal_is_of_the_proof_that_was_tried() {
        let learnt = Learnt::default();
        let proof = |password: &str| Proof { secret: Secret::Plain(password.into()), key: None };
        learnt.learn(proof("one"));
        let tried = learnt.get().unwrap();
        learnt.learn(proof("two"));
        assert!(!learnt.refused(&tried) && learnt.get().is_some());
        assert!(learnt.refused(&learnt.get().unwrap()) && learnt.get().is_none());
    }
}
