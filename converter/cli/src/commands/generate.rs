//! `snapc generate`: shell completions and man pages, from the description of the command line.

use std::path::Path;

use crate::args::GenerateCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Writes what was asked for.
///
/// # Errors
/// When a file cannot be written.
pub fn run(command: &GenerateCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        GenerateCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut crate::command(), "snapc", &mut script);
            output.text(&String::from_utf8_lossy(&script))?;
        }
        GenerateCommand::Man { directory } => {
            std::fs::create_dir_all(directory).map_err(|e| Failure::write(directory, e))?;
            for (name, page) in man_pages()? {
                let path = directory.join(name);
                std::fs::write(&path, page).map_err(|e| Failure::write(&path, e))?;
                output.text(&format!("{}\n", path.display()))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// One page for the program and one per command, by file name.
fn man_pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut root = crate::command();
    root.build();
    let mut pages = vec![page(&root)?];
    for command in root.get_subcommands() {
        pages.push(page(command)?);
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> Result<(String, Vec<u8>), Failure> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let mut page = Vec::new();
    // No date in the header: the same version gives the same pages.
    clap_mangen::Man::new(command.clone())
        .date("")
        .render(&mut page)
        .map_err(|e| Failure::write(Path::new(&name), e))?;
    Ok((format!("{name}.1"), page))
}
