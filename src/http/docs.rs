//! `docs/metrics.md`, from the table of families and from what insight renders.

