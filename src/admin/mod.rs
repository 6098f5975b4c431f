//! The psql console.

use std::rc::Rc;

use crate::client::{Console, Worker};

/// Serves one console client to its end.
pub async fn serve(w: Rc<Worker>, console: Console) {
    drop((w, console));
}
