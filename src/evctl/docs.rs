//! Shell completions and man pages, from the definitions that the programs parse with, so that they can't say something else.
//!
//! Packagers call this at build time: `evctl man --dir DIR` writes one page for evctl and one for each of its commands.

use super::args::Args;
use super::error::Error;
use super::text::printable;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Programs besides evctl whose pages belong to it, with their section of the manual.
fn others() -> Vec<(clap::Command, &'static str)> {
    vec![(crate::server::args::Args::command(), "8")]
}

/// `evctl completions`.
///
/// # Errors
/// What stdout gave.
pub(super) fn completions(shell: Shell) -> Result<(), Error> {
    // Into memory first: the generator panics on a writer that fails, and stdout may.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "evctl", &mut text);
    Ok(io::stdout().write_all(&text)?)
}

/// `evctl man`: evctl's page to stdout, or all pages into `dir`.
///
/// # Errors
/// What stdout gave; `Failed` if a page can't be written.
pub(super) fn man(dir: Option<&Path>) -> Result<(), Error> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        Man::new(Args::command()).render(&mut text)?;
        return Ok(io::stdout().write_all(&text)?);
    };
    write_pages(dir).map_err(|e| {
        Error::Failed(format!("can't write pages into {}: {e}", printable(&dir.to_string_lossy())))
    })
}

fn write_pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // A `help` command is no page of its own.
    clap_mangen::generate_to(Args::command().disable_help_subcommand(true), dir)?;
    for (command, section) in others() {
        let mut text = Vec::new();
        let name = format!("{}.{section}", command.get_name());
        Man::new(command).section(section).render(&mut text)?;
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}
