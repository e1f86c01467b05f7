//! The subcommands for a TDX host: `status`, `list`, `plan`, `update`, `apply`, `history`,
//! `report`, `metrics`.

mod apply;
mod history;
mod list;
mod metrics;
mod options;
mod plan;
mod report;
mod status;
mod update;

pub(crate) use apply::Arguments as Apply;
pub(crate) use history::Arguments as History;
pub(crate) use list::Arguments as List;
pub(crate) use metrics::Arguments as Metrics;
pub(crate) use plan::Arguments as Plan;
pub(crate) use report::Arguments as Report;
pub(crate) use status::Arguments as Status;
pub(crate) use update::Arguments as Update;
