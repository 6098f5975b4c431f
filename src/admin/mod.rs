//! The console: the database `pgsluice` (or `pgbouncer`), spoken to with psql or any driver's simple queries.
//!
//! | file | what it does |
//! |---|---|
//! | [`session`] | messages in and out, to the end of the client |
//! | [`parse`] | text into statements of words |
//! | [`command`] | what each statement means |
//! | [`show`] | the answers of SHOW |
//! | [`table`] | rows |
//!
//! Column names, their order and the wording of errors are PgBouncer's where its tools rely on them; columns of ours
//! stand behind them. Answers are made on a thread of their own, so that a long list delays no query.

pub mod command;
pub mod parse;
pub mod session;
pub mod show;
pub mod table;

pub use session::serve;
