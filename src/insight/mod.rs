//! What the ORM does to the database: units of work, runs, findings, advice, and the bounded registry behind them.
