//! The parameters of a login, tried at a server when they are new: what it reports with them is what the client is told.

use std::rc::Rc;
use std::sync::Arc;

use super::Worker;
use super::registry::{ClientState, Place};
use crate::config::PoolMode;
use crate::net::clock::now_us;
use crate::pool::welcome::Reported;
use crate::pool::{Checkout, CheckoutError, Pool};
use crate::server::{self, ParamSet};
use crate::wire::error::{ErrorFields, sqlstate};

/// What servers report under these parameters: known, or asked of a server, which proves that it takes them. In session
/// pooling the server stays with the client.
pub(super) async fn reported(
    w: &Rc<Worker>,
    pool: &Arc<Pool>,
    place: &Place,
    startup: &Arc<ParamSet>,
) -> Result<(Arc<Reported>, Option<Checkout>), ErrorFields> {
    let session = pool.settings.pool_mode == PoolMode::Session;
    let shared = &w.process.pools.shared().params;
    let key = if session { Arc::clone(startup) } else { shared.intern(startup.without("application_name")) };
    if !session && let Some(known) = pool.welcomes.get(&key) {
        return Ok((known, None));
    }
    place.info.set_state(ClientState::Waiting, 0, now_us());
    let mut lost = None;
    for _ in 0..SERVERS_TRIED {
        let server = server_for(w, pool, place, startup).await?;
        if session {
            return Ok((Arc::new(server.reported.clone()), Some(server)));
        }
        match Box::pin(try_out(pool, server, &key)).await {
            Ok(tried) => return tried.map(|reported| (reported, None)),
            // It ended as it was asked, of which the client need not hear. A slow one is not asked twice.
            Err(e) => {
                let slow = matches!(e, server::clean::CleanError::Timeout);
                lost = Some(e);
                if slow {
                    break;
                }
            }
        }
    }
    let why = lost.map_or_else(String::new, |e| e.to_string());
    Err(ErrorFields::fatal(sqlstate::CONNECTION_FAILURE, format!("server connection failed: {why}")))
}

/// Servers that may end one after the other while they are asked for one client.
const SERVERS_TRIED: usize = 3;

/// A server for a login, after waiting in line.
async fn server_for(
    w: &Rc<Worker>,
    pool: &Arc<Pool>,
    place: &Place,
    startup: &Arc<ParamSet>,
) -> Result<Checkout, ErrorFields> {
    let wait = pool.settings.query_wait_timeout;
    let checkout = Box::pin(pool.checkout(w.id, place.info.id, startup));
    let server = if wait.is_zero() { Ok(checkout.await) } else { tokio::time::timeout(wait, checkout).await };
    match server {
        Ok(Ok(server)) => Ok(server),
        Ok(Err(CheckoutError::Failed(fields))) => {
            pool.stats[w.id].connect_failures.add(1);
            Err(fields)
        }
        Err(_) => {
            pool.stats[w.id].wait_timeouts.add(1);
            let (detail, hint) = pool.holders();
            Err(ErrorFields::fatal(sqlstate::TOO_MANY_CONNECTIONS, "query_wait_timeout").detail(detail).hint(hint))
        }
    }
}

/// What this server reports with these parameters, or why it does not take them.
///
/// # Errors
/// The connection failed.
async fn try_out(
    pool: &Pool,
    mut server: Checkout,
    key: &Arc<ParamSet>,
) -> Result<Result<Arc<Reported>, ErrorFields>, server::clean::CleanError> {
    // What it said to others is not for this client.
    server.said.clear();
    let mut sql = Vec::new();
    server::params::sync_sql(&server.params, key, &mut sql);
    let (mut server, refused) = if sql.is_empty() { (server, None) } else { server.apply(&sql).await? };
    if refused.is_none() {
        server.params = Arc::clone(key);
    }
    let told = refused.map_or_else(|| Ok(pool.welcomes.learn(key, &server)), Err);
    server.release(now_us());
    Ok(told)
}
