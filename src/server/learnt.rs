//! What clients' logins tell of the user of a pool: the newest counts, for logins at the server to come.

use std::sync::Arc;

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

    /// What the server took once has to be tried there again.
    pub fn doubt(&self) {
        self.vouched.store(None);
    }

    /// The server took the password of this.
    pub fn vouch(&self, vouched: Vouched) {
        self.vouched.store(Some(Arc::new(vouched)));
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
            learnt.vouch(Vouched { verifier, until_us: 10 });
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
}
