//! What clients' logins tell of the user of a pool: the newest counts, for logins at the server to come.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::auth::{ClientKey, Secret};

/// What a client has logged in with. Shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// What was known of the user.
    pub secret: Secret,
    /// Where that was a verifier: the key that the client proved to have.
    pub key: Option<ClientKey>,
}

/// The newest proof.
#[derive(Default)]
pub struct Learnt(ArcSwapOption<Proof>);

impl Learnt {
    /// The newest proof, if there was any.
    pub fn get(&self) -> Option<Arc<Proof>> {
        self.0.load_full()
    }

    /// Nothing is known any more.
    pub fn forget(&self) {
        self.0.store(None);
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
        self.0.store(Some(Arc::new(proof)));
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
}
