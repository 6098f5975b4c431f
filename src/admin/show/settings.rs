//! SHOW CONFIG, VERSION, STATE, MEM.

use std::sync::atomic::Ordering::Relaxed;

use crate::admin::table::{Table, row};
use crate::client::{ClientInfo, Process};
use crate::pool::Pool;
use crate::server::ServerInfo;

pub(super) fn config(process: &Process) -> Table {
    let mut table = Table::new("key value default changeable");
    for e in process.config.entries() {
        // A reload is not built yet: nothing can be changed while pgsluice runs.
        table.push(row![e.key, e.value, e.default, "no"]);
    }
    table
}

pub(super) fn version(_: &Process) -> Table {
    let mut table = Table::new("version");
    table.push(row![concat!("pgsluice ", env!("CARGO_PKG_VERSION"))]);
    table
}

pub(super) fn state(process: &Process) -> Table {
    let mut table = Table::new("key value");
    let word = |yes| if yes { "yes" } else { "no" };
    let draining = process.draining.load(Relaxed);
    for (key, yes) in [("active", !draining), ("paused", false), ("suspended", false), ("draining", draining)] {
        table.push(row![key, word(yes)]);
    }
    table
}

/// Memory of what is counted one by one; buffers and the allocator's own are not in it.
pub(super) fn mem(process: &Process) -> Table {
    let mut table = Table::new("name #size #used #free #memtotal");
    let pools = process.pools.all();
    let servers: usize = pools.iter().map(|p| p.servers().len()).sum();
    for (name, size, used) in [
        ("client_info", size_of::<ClientInfo>(), process.clients.count()),
        ("server_info", size_of::<ServerInfo>(), servers),
        ("pool", size_of::<Pool>(), pools.len()),
    ] {
        table.push(row![name, size, used, 0_u64, size * used]);
    }
    table
}
