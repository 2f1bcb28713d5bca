//! Where the master key comes from.

use super::Failure;
use crate::config::Secrets;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::clock::Entropy;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use store::envelope::MasterKey;
use tokio::process::Command;

/// How long the command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// The longest that a key's file can be: 44 characters and white space.
const MAX_FILE_BYTES: u64 = 1024;

/// The master key: from the environment, the command or the file, which is made where it is missing and `former`, the
/// database that was used before, is none.
pub async fn master_key(secrets: &Secrets, former: Option<&str>, entropy: &dyn Entropy) -> Result<MasterKey, Failure> {
    let command = secrets.master_key_command.expose_secret();
    let (place, text) = if let Some(text) = &secrets.master_key {
        ("secrets.master_key".to_owned(), text.clone())
    } else if !command.is_empty() {
        ("secrets.master_key_command".to_owned(), run(command).await.map_err(Failure::new)?)
    } else {
        let path = &secrets.master_key_file;
        (path.display().to_string(), from_file(path, former, entropy).map_err(Failure::new)?)
    };
    let bytes = STANDARD.decode(text.expose_secret().trim()).map(Zeroizing::new).ok();
    let bytes: Option<&[u8; 32]> = bytes.as_ref().and_then(|bytes| bytes.as_slice().try_into().ok());
    bytes.map(MasterKey::new).ok_or_else(|| Failure::new(format!("{place}: the master key must be 32 bytes in base64")))
}

async fn run(command: &str) -> Result<SecretString, String> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let failed = |why: String| format!("secrets.master_key_command {why}");
    let output = tokio::time::timeout(COMMAND_LIMIT, shell.output()).await;
    let output = output.map_err(|_| failed(format!("took longer than {} s", COMMAND_LIMIT.as_secs())))?;
    let output = output.map_err(|error| failed(format!("cannot be started: {error}")))?;
    let printed = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(format!("failed: {}", output.status)));
    }
    let text = std::str::from_utf8(&printed).map_err(|_| failed("printed something else than base64".to_owned()))?;
    Ok(SecretString::from(text))
}

fn from_file(path: &Path, former: Option<&str>, entropy: &dyn Entropy) -> Result<SecretString, String> {
    let fault = |error: io::Error| format!("{}: {error}", path.display());
    match File::open(path) {
        Ok(file) => return read(file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    if let Some(database) = former {
        // A new key would not open what the old one sealed; better to say so now than at the first secret.
        return Err(format!(
            "{} is missing, but the database {database} is there: put the master key back that it was made with",
            path.display()
        ));
    }
    make(path, entropy).map_err(fault)?;
    read(File::open(path).map_err(fault)?, path)
}

fn read(file: File, path: &Path) -> Result<SecretString, String> {
    let fault = |error: io::Error| format!("{}: {error}", path.display());
    let mode = file.metadata().map_err(fault)?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!(
            "{path} may be read by others than its owner (mode {:03o}): chmod 600 {path}",
            mode & 0o777
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(fault)?;
    Ok(SecretString::from(text.as_str()))
}

/// Makes the file whole or not at all: a crash leaves no half key, and of two first starts one makes it.
fn make(path: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(bytes.as_mut());
    let text = Zeroizing::new(format!("{}\n", STANDARD.encode(bytes.as_ref())));
    let made = write_private(path, text.as_bytes(), Existing::Keep);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What becomes of a file that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the write fails.
    Keep,
    /// It is replaced.
    Replace,
}

/// Writes a file of mode 0600 that is whole or not there, and on disk when this returns; makes its folder where there
/// is none.
pub fn write_private(path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    let folder = folder_of(path);
    make_folder(folder)?;
    let mut file = tempfile::Builder::new().prefix(".esito-").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let persisted = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    persisted.map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Makes a folder for its owner alone, unless it is there.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn secrets(folder: &Path) -> Secrets {
        Secrets { master_key_file: folder.join("data/master.key"), ..crate::config::Config::default().secrets }
    }

    async fn fault(secrets: &Secrets, former: Option<&str>) -> String {
        match master_key(secrets, former, &SystemEntropy).await {
            Ok(_) => panic!("the key was taken"),
            Err(failure) => failure.to_string(),
        }
    }

    #[tokio::test]
    async fn the_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path());
        master_key(&secrets, None, &SystemEntropy).await.unwrap();
        let first = std::fs::read(&secrets.master_key_file).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secrets.master_key_file), 0o600);
        assert_eq!(mode(&folder.path().join("data")), 0o700);
        master_key(&secrets, Some("sqlite:esito.db"), &SystemEntropy).await.unwrap();
        assert_eq!(std::fs::read(&secrets.master_key_file).unwrap(), first);
        assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path());
        master_key(&secrets, None, &SystemEntropy).await.unwrap();
        let open_to_others = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&secrets.master_key_file, open_to_others).unwrap();
        assert!(fault(&secrets, None).await.contains("(mode 640): chmod 600"));
    }

    #[tokio::test]
    async fn no_new_key_is_made_for_an_old_database() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path());
        assert!(fault(&secrets, Some("sqlite:esito.db")).await.contains("put the master key back"));
        assert!(!secrets.master_key_file.exists());
    }

    #[tokio::test]
    async fn a_command_may_print_the_key_and_its_failure_does_not_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let with =
            |command: &str| Secrets { master_key_command: SecretString::from(command), ..secrets(folder.path()) };
        let key = STANDARD.encode([7; 32]);
        master_key(&with(&format!("echo {key}")), None, &SystemEntropy).await.unwrap();
        for bad in [format!("echo {key}; exit 3"), format!("echo x{key}"), "true".to_owned()] {
            let told = fault(&with(&bad), None).await;
            assert!(told.starts_with("secrets.master_key_command") && !told.contains(&key), "{told}");
        }
    }
}
