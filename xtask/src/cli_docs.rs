//! `cargo xtask cli-docs`: makes shell completions and man pages of the command `tdx-seamldr` from
//! its arguments.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::{generate_to, Shell};
use clap_mangen::Man;

/// The name of the command.
const NAME: &str = "tdx-seamldr";

/// The section of the manual for commands of administrators.
const SECTION: &str = "8";

/// The shells that get completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes completions to `completions` and pages to `man/man8`, below a folder.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let completions = folder.join("completions");
    let pages = folder.join("man").join(format!("man{SECTION}"));
    for part in [&completions, &pages] {
        fs::create_dir_all(part).with_context(|| part.display().to_string())?;
    }
    for shell in SHELLS {
        let path = generate_to(shell, &mut tdx_seamldr_cli::command(), NAME, &completions)?;
        println!("{} written", path.display());
    }
    // The subcommand `help` needs no page.
    let mut command = tdx_seamldr_cli::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, &pages)?;
    for subcommand in command.get_subcommands() {
        write_page(subcommand, &pages)?;
    }
    Ok(())
}

/// Writes the page of the command or of a subcommand, under the name that `man` expects.
fn write_page(command: &clap::Command, pages: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = pages.join(format!("{name}.{SECTION}"));
    let mut page = Vec::new();
    Man::new(command.clone()).section(SECTION).manual("System administration").render(&mut page)?;
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("{} written", path.display());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;

    fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path()).unwrap();
        folder
    }

    fn pages(folder: &Path) -> Vec<PathBuf> {
        let pages = fs::read_dir(folder.join("man/man8")).unwrap();
        pages.map(|page| page.unwrap().path()).collect()
    }

    /// Runs a program that checks a file. `None` if the program is not installed.
    fn look(program: &str, option: &str, file: &Path) -> Option<(bool, String)> {
        match Command::new(program).arg(option).arg(file).output() {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
            }
            Err(_) => {
                eprintln!("skipped: {program} is not installed");
                None
            }
        }
    }

    #[test]
    fn page_of_each_subcommand_names_its_options() {
        let folder = made();
        let mut command = tdx_seamldr_cli::command();
        command.build();
        let subcommands: Vec<_> =
            command.get_subcommands().filter(|one| one.get_name() != "help").collect();
        assert!(subcommands.len() >= 12, "{subcommands:?}");
        assert_eq!(pages(folder.path()).len(), subcommands.len() + 1);
        for subcommand in subcommands {
            let path = folder.path().join(format!("man/man8/{NAME}-{}.8", subcommand.get_name()));
            let page = fs::read_to_string(&path).unwrap();
            for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
                // Pages write a hyphen inside a line as `\-`.
                let wanted = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(page.contains(&wanted), "{} does not name --{option}", path.display());
            }
        }
    }

    #[test]
    fn completions_name_each_subcommand() {
        let folder = made();
        for name in ["tdx-seamldr.bash", "_tdx-seamldr", "tdx-seamldr.fish"] {
            let text = fs::read_to_string(folder.path().join("completions").join(name)).unwrap();
            for subcommand in tdx_seamldr_cli::command().get_subcommands() {
                assert!(text.contains(subcommand.get_name()), "{name}: {}", subcommand.get_name());
            }
        }
    }

    #[test]
    fn shells_and_mandoc_accept_the_files() {
        let folder = made();
        for (shell, name) in
            [("bash", "tdx-seamldr.bash"), ("zsh", "_tdx-seamldr"), ("fish", "tdx-seamldr.fish")]
        {
            if let Some((is_read, said)) =
                look(shell, "-n", &folder.path().join("completions").join(name))
            {
                assert!(is_read, "{shell}: {said}");
            }
        }
        for page in pages(folder.path()) {
            let Some((_, said)) = look("mandoc", "-Tlint", &page) else { break };
            let errors: Vec<_> = said
                .lines()
                .filter(|line| line.contains("ERROR:") || line.contains("UNSUPP:"))
                .collect();
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }
}
