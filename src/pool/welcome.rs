//! The ParameterStatus values and notices a client is told at login: what a server says under that client's parameters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::server::{Notices, ParamSet, Server};

/// Parameter sets remembered per pool; more are asked of a server anew.
const MAX_SETS: usize = 256;

/// Reported values, as a server spelled them.
pub type Reported = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Reported values by startup parameters (application_name left out: its value is the client's own).
#[derive(Default)]
pub struct Welcomes {
    known: Mutex<HashMap<Arc<ParamSet>, Known>>,
    /// What the last server reported that was opened without any client's parameters.
    baseline: Mutex<Reported>,
}

struct Known {
    reported: Arc<Reported>,
    /// Of a server's login and of setting these parameters; mostly none.
    notices: Notices,
}

impl Welcomes {
    /// What servers report under `params`.
    pub fn get(&self, params: &ParamSet) -> Option<Arc<Reported>> {
        self.known.lock().ok()?.get(params).map(|k| Arc::clone(&k.reported))
    }

    /// What servers say to who logs in with `params`: bodies of NoticeResponse.
    pub fn notices(&self, params: &ParamSet) -> Notices {
        self.known.lock().ok().and_then(|k| k.get(params).map(|k| k.notices.clone())).unwrap_or_default()
    }

    /// Learns from a server that has `params` set.
    pub fn learn(&self, params: &Arc<ParamSet>, server: &Server) -> Arc<Reported> {
        let notices = server.notices.iter().chain(&server.said).cloned().collect();
        self.keep(params, Arc::new(server.reported.clone()), notices)
    }

    /// Learns values as a server would report them under no parameters.
    #[cfg(test)]
    pub(crate) fn learn_reported<'a>(&self, reported: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let reported = reported.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        self.keep(&Arc::default(), Arc::new(reported), Vec::new());
    }

    fn keep(&self, params: &Arc<ParamSet>, reported: Arc<Reported>, notices: Notices) -> Arc<Reported> {
        if let Ok(mut known) = self.known.lock() {
            if known.len() >= MAX_SETS {
                known.clear();
            }
            known.insert(Arc::clone(params), Known { reported: Arc::clone(&reported), notices });
        }
        reported
    }

    /// A server was opened without any client's parameters. When it reports something else than the one before it, the
    /// database was upgraded or reconfigured, and what is known is of the past.
    pub fn opened(&self, server: &Server) {
        if !server.startup.is_empty() {
            return;
        }
        let (Ok(mut baseline), Ok(mut known)) = (self.baseline.lock(), self.known.lock()) else { return };
        if !baseline.is_empty() && *baseline != server.reported {
            known.clear();
        }
        baseline.clone_from(&server.reported);
    }
}

impl Welcomes {
    /// Whether servers report this parameter (lower-case name).
    pub fn reports(&self, name: &str) -> bool {
        self.known.lock().is_ok_and(|known| {
            known
                .values()
                .next()
                .is_some_and(|k| k.reported.iter().any(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())))
        })
    }

    /// Whether servers report this value where no client has set another.
    pub fn is_default(&self, name: &[u8], value: &[u8]) -> bool {
        self.baseline.lock().is_ok_and(|known| known.iter().any(|(n, v)| **n == *name && **v == *value))
    }
}
