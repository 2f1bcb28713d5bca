//! The rules of the house that the compiler cannot check.

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn neither_the_api_nor_the_console_names_what_leaves_the_house() {
    let folders = ["src/api", "src/console"].map(|folder| sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)));
    assert!(folders.iter().all(|files| files.len() > 10), "both were found");
    for file in folders.concat() {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(!line.contains("outbound::"), "{}: {line}", file.display());
        }
    }
}

#[test]
fn every_command_of_the_readme_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `esito ")).collect::<Vec<_>>();
    assert!(rows.len() >= 8, "the table of commands was found");
    for row in rows {
        let words: Vec<&str> = row.split('`').next().unwrap().split_whitespace().collect();
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_esito")).args(&words).arg("--help").output().unwrap();
        assert!(help.status.success(), "esito {} --help", words.join(" "));
    }
}
