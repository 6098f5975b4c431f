//! Server connections of replication clients: one for each, opened for it and closed with it. They stand beside the
//! pool's own and are not counted in `pool_size`; the number of clients bounds them.

use std::sync::Arc;

use super::Pool;
use crate::net::clock::now_us;
use crate::server::{ParamSet, Server, ServerInfo, ServerState, connect};
use crate::wire::ErrorFields;

/// A server connection of one replication client.
pub struct Dedicated {
    /// The connection.
    pub server: Server,
    pool: Arc<Pool>,
}

impl Dedicated {
    /// The pool it is shown with.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Dedicated {
    fn drop(&mut self) {
        self.pool.book().replication.retain(|(s, _)| !Arc::ptr_eq(s, &self.server.info));
    }
}

impl Pool {
    /// Opens one for `client`, with its startup parameters; `kind` is PgBouncer's word, `logical` or `physical`. Cancel
    /// safe.
    ///
    /// # Errors
    /// What the client is told: the server's own words, where it refused.
    pub async fn open_replication(
        self: &Arc<Self>,
        worker: usize,
        client: u64,
        startup: &Arc<ParamSet>,
        kind: &'static str,
    ) -> Result<Dedicated, ErrorFields> {
        let began = now_us();
        let result = connect::connect(&self.target, startup, &self.shared.auth, worker).await;
        self.count_connect(worker, began, result.as_ref().map(|_| ()));
        // A failure says nothing of the pool's own logins: the role may just not replicate.
        let server = result.map_err(|e| e.fields(&self.target))?;
        server.info.set_state(ServerState::Active, client, now_us());
        if let Some(name) = server.reported(b"application_name") {
            server.info.set_application(name);
        }
        self.book().replication.push((Arc::clone(&server.info), kind));
        Ok(Dedicated { server, pool: Arc::clone(self) })
    }

    /// Server connections of replication clients, with PgBouncer's word for their kind.
    pub fn replication(&self) -> Vec<(Arc<ServerInfo>, &'static str)> {
        self.book().replication.clone()
    }
}
