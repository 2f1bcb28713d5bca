//! `esito config check`.

use super::{ConfigArgs, Failure, Outcome, print_line};
use serde_json::json;

/// The arguments of `esito config check`.
#[derive(Debug, clap::Args)]
pub struct ConfigCheck {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

impl ConfigCheck {
    /// Prints the configuration that counts, without secrets, or fails with all that is wrong with it.
    pub fn run(&self) -> Outcome {
        let loaded = match self.config.load() {
            Ok(loaded) => loaded,
            Err(faults) if self.json => {
                print_line(&json!({"valid": false, "faults": faults.0}).to_string())?;
                return Err(Failure::told());
            }
            Err(faults) => return Err(faults.into()),
        };
        if self.json {
            return print_line(
                &json!({"valid": true, "file": loaded.file, "config": loaded.config.to_json()}).to_string(),
            );
        }
        let from = loaded.file.map_or("no file".to_owned(), |file| file.display().to_string());
        print_line(&format!(
            "# Valid. Read from {from}, the environment and the flags.\n{}",
            loaded.config.to_toml().trim_end()
        ))
    }
}
