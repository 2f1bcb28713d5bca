//! A Postfix of our own: its configuration, queue and log in a temporary folder.
//!
//! It takes mail on a port of 127.0.0.1, refuses recipients named `refuse-…`, asks `policy.py` about the others, and
//! passes all on to `mail_sink.py`.

use super::peer::{Peer, free_port};
use crate::support::HANG;
use crate::support::receiver::Authority;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The services of `master.cf`, none in a chroot: name, type, private, unprivileged, chroot, wake-up, limit, program. The
/// queue manager is woken each second: where the relay was stopped hard, whoever has queued a mail may not have called it.
const SERVICES: &str = "
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 1 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
";

/// The sink behind the relay, its policy service and the relay.
pub struct MailSystem {
    pub sink: Peer,
    pub policy: Peer,
    pub postfix: Postfix,
}

impl MailSystem {
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// `policy` are the arguments of the policy service, `settings` go over those of `main.cf`.
    pub async fn start_with(policy: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_in(open_folder(), policy, settings).await
    }

    async fn start_in(folder: TempDir, policy: &[&str], settings: &[(&str, &str)]) -> Self {
        let sink = Peer::python("mail_sink.py", &[folder.path().join("mails")]);
        let policy = Peer::python("policy.py", policy);
        let ports = (sink.port().await, policy.port().await);
        let postfix = Postfix::start(folder, ports, settings).await;
        Self { sink, policy, postfix }
    }

    /// One that takes mail by STARTTLS only, with a certificate of this authority.
    pub async fn start_tls(authority: &Authority) -> Self {
        let folder = open_folder();
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]);
        let file = folder.path().join("relay.pem");
        std::fs::write(&file, key + &certificate).unwrap();
        let file = file.to_string_lossy();
        let settings = [("smtpd_tls_chain_files", &*file), ("smtpd_tls_security_level", "encrypt")];
        Self::start_in(folder, &[], &settings).await
    }

    /// The mails at the sink, once there are this many and none is left in the relay's queue.
    pub async fn mails(&self, count: usize) -> Vec<Value> {
        if tokio::time::timeout(HANG / 2, self.sink.wait_for(count, is_mail)).await.is_err() {
            let came = self.sink.told().into_iter().filter(is_mail).count();
            panic!("{came} of {count} mails came; {}", self.postfix.state());
        }
        self.postfix.wait_until_empty().await;
        self.sink.told().into_iter().filter(is_mail).collect()
    }
}

/// Whether the sink's report is a mail.
pub fn is_mail(told: &Value) -> bool {
    told["to"].is_string()
}

pub struct Postfix {
    pub port: u16,
    /// What earlier runs have logged.
    former: Vec<String>,
    running: Option<Peer>,
    /// Last, so that it is removed when nobody writes into it any more.
    folder: TempDir,
}

impl Postfix {
    async fn start(folder: TempDir, ports: (u16, u16), settings: &[(&str, &str)]) -> Self {
        assert_eq!(
            std::fs::metadata("/proc/self").unwrap().uid(),
            0,
            "Postfix runs as root only: run these tests as root"
        );
        make_folders(folder.path());
        let mut postfix = Self { port: 0, former: Vec::new(), running: None, folder };
        postfix.write("main.cf", &main_cf(postfix.folder.path(), ports, settings));
        postfix.write("recipients", "/^refuse-/ 550 5.1.1 no such user here\n");
        for _ in 0..10 {
            postfix.port = free_port();
            let port = postfix.port;
            postfix.write("master.cf", &format!("127.0.0.1:{port} inet n - n - 50 smtpd\n{}", SERVICES.trim_start()));
            if postfix.try_up().await {
                return postfix;
            }
        }
        panic!("Postfix did not come up:\n{}", postfix.log().join("\n"));
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.conf().join(name), text).unwrap();
    }

    /// Starts it, again or for the first time; whether it could.
    async fn try_up(&mut self) -> bool {
        let conf = self.conf();
        let words = ["-c".as_ref(), conf.as_os_str(), "start-fg".as_ref()];
        let peer = Peer::start("postfix", &words);
        let up = |lines: &[String]| lines.iter().any(|line| line.contains("daemon started")).then_some(());
        let is_up = peer.look_for("its start", up).await.is_some();
        if is_up {
            self.running = Some(peer);
        } else {
            self.former.extend(peer.stop().await);
        }
        is_up
    }

    /// Starts it again, on the same port, with these settings over the former ones.
    pub async fn up(&mut self, settings: &[(&str, &str)]) {
        let file = self.conf().join("main.cf");
        let changed = std::fs::read_to_string(&file).unwrap() + &lines_of(settings);
        std::fs::write(&file, changed).unwrap();
        assert!(self.try_up().await, "Postfix did not come up again:\n{}", self.log().join("\n"));
    }

    /// Stops it; its connections break.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("Postfix runs");
        self.former.extend(running.stop().await);
    }

    /// What all its runs have logged.
    pub fn log(&self) -> Vec<String> {
        let mut log = self.former.clone();
        log.extend(self.running.iter().flat_map(Peer::lines));
        log
    }

    /// What is in its queue, and the end of its log.
    fn state(&self) -> String {
        let mut find = std::process::Command::new("find");
        let queue = find.arg(self.folder.path().join("queue")).args(["-type", "f", "-ls"]).output().unwrap();
        let log = self.log();
        let last = log[log.len().saturating_sub(60)..].join("\n");
        format!("its queue:\n{}\nits log:\n{last}", String::from_utf8_lossy(&queue.stdout))
    }

    async fn wait_until_empty(&self) {
        let running = self.running.as_ref().expect("Postfix runs");
        let former = self.former.clone();
        let empty = |lines: &[String]| {
            let all = || former.iter().chain(lines);
            let queued: HashSet<&str> =
                all().filter(|line| line.contains("qmgr[")).filter_map(|line| queue_id(line, ": from=<")).collect();
            let removed: HashSet<&str> = all().filter_map(|line| queue_id(line, ": removed")).collect();
            (queued == removed).then_some(())
        };
        running.wait_until("its empty queue", empty).await;
    }
}

/// The queue's name of the mail, in a line that says this of it: `… postfix/qmgr[1]: 4AB: removed`.
fn queue_id<'a>(line: &'a str, said: &str) -> Option<&'a str> {
    let end = line.find(said)?;
    line[..end].rsplit_once("]: ").map(|(_, id)| id)
}

/// A folder that Postfix's own users can pass through.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn make_folders(folder: &Path) {
    for name in ["conf", "queue", "data"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    let mut chown = std::process::Command::new("chown");
    let status = chown.arg("postfix").arg(folder.join("data")).status().unwrap();
    assert!(status.success(), "Postfix's user is missing: install the Debian package (scripts/peers)");
}

fn main_cf(folder: &Path, (sink, policy): (u16, u16), settings: &[(&str, &str)]) -> String {
    let folder = folder.display();
    let relayhost = format!("[127.0.0.1]:{sink}");
    let restrictions =
        format!("check_recipient_access regexp:{folder}/conf/recipients, check_policy_service inet:127.0.0.1:{policy}");
    let (queue, data) = (format!("{folder}/queue"), format!("{folder}/data"));
    let fixed = [
        ("compatibility_level", "3.6"),
        ("myhostname", "relay.test"),
        ("mydestination", ""),
        ("alias_maps", ""),
        ("mynetworks", "127.0.0.0/8"),
        ("inet_interfaces", "127.0.0.1"),
        ("inet_protocols", "ipv4"),
        ("queue_directory", &*queue),
        ("data_directory", &*data),
        ("maillog_file", "/dev/stdout"),
        ("relayhost", &*relayhost),
        ("disable_dns_lookups", "yes"),
        ("smtpd_peername_lookup", "no"),
        ("smtpd_relay_restrictions", "permit_mynetworks, reject"),
        ("smtpd_recipient_restrictions", &*restrictions),
        // A client that fails now and then is what these tests are about: it is not to be slowed down for it.
        ("smtpd_error_sleep_time", "0"),
        ("smtpd_tls_received_header", "yes"),
        // The relay is to mend nothing: no Date or Message-ID that was missing.
        ("local_header_rewrite_clients", ""),
        ("queue_run_delay", "1s"),
        ("minimal_backoff_time", "1s"),
        ("maximal_backoff_time", "1s"),
    ];
    lines_of(&fixed) + &lines_of(settings)
}

fn lines_of(settings: &[(&str, &str)]) -> String {
    settings.iter().fold(String::new(), |mut lines, (name, value)| {
        writeln!(lines, "{name} = {value}").unwrap();
        lines
    })
}
