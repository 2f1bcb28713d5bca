//! What the kernel says of a process.

use std::collections::HashMap;
use std::fs;

/// A process at one moment.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// User and system time of the process, its ended threads included, in steps of 10 ms.
    coarse_micros: f64,
    /// The time of each living thread, exact.
    threads: HashMap<u64, f64>,
    /// The resident set.
    pub rss_mib: f64,
    /// The largest so far.
    pub peak_rss_mib: f64,
    /// Bytes that went to disk; none where the kernel does not tell.
    pub written_bytes: Option<f64>,
}

/// Two counters of 10 ms each are cut off at either end.
const COARSE_ERROR_MICROS: f64 = 40_000.0;

impl Account {
    /// Reads `/proc/<pid>`.
    pub fn of(pid: u32) -> Result<Self, String> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| error.to_string());
        let status = read("status")?;
        let mib = |name: &str| field(&status, name).map(|kib| kib / 1024.0).ok_or(format!("no {name}"));
        Ok(Self {
            coarse_micros: stat_micros(&read("stat")?, OWN).ok_or("an unknown form of stat")?,
            threads: thread_micros(pid),
            rss_mib: mib("VmRSS:")?,
            peak_rss_mib: mib("VmHWM:")?,
            written_bytes: read("io").ok().and_then(|io| field(&io, "write_bytes:")),
        })
    }

    /// That of this process.
    pub fn own() -> Result<Self, String> {
        Self::of(std::process::id())
    }

    /// The processor time since `before`, in microseconds: exact, but where threads have ended meanwhile.
    pub fn cpu_micros_since(&self, before: &Self) -> f64 {
        let since = |(id, micros): (&u64, &f64)| micros - before.threads.get(id).copied().unwrap_or_default();
        let exact: f64 = self.threads.iter().map(since).sum();
        let coarse = self.coarse_micros - before.coarse_micros;
        if coarse > exact + COARSE_ERROR_MICROS || self.threads.is_empty() { coarse } else { exact }
    }

    /// Bytes that went to disk since `before`.
    pub fn written_since(&self, before: &Self) -> Option<f64> {
        Some(self.written_bytes? - before.written_bytes?)
    }
}

/// The processor time of a process and of all its children that have ended, in steps of 10 ms.
pub fn family_micros(pid: u32) -> Option<f64> {
    stat_micros(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, WITH_CHILDREN)
}

/// The names of a process's threads, at most 15 bytes of each, and their processor time.
pub fn thread_names_and_micros(pid: u32) -> Vec<(String, f64)> {
    let named = |(thread, micros): (u64, f64)| {
        let name = fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")).ok()?;
        Some((name.trim_end().to_owned(), micros))
    };
    thread_micros(pid).into_iter().filter_map(named).collect()
}

/// How many fields of proc_pid_stat(5) from the 14th on: user and system time,
const OWN: usize = 2;
/// and those of the children that have ended.
const WITH_CHILDREN: usize = 4;

/// The sum of these times, which are in hundredths of a second.
fn stat_micros(stat: &str, fields: usize) -> Option<f64> {
    // The second field, a name in brackets, may hold spaces.
    let times = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(fields);
    times.map(|ticks| Some(ticks.parse::<f64>().ok()? * 10_000.0)).sum()
}

/// The first field of `schedstat`, in nanoseconds, by thread; empty where the kernel does not keep it.
fn thread_micros(pid: u32) -> HashMap<u64, f64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    let of_thread = |entry: fs::DirEntry| {
        let schedstat = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let nanos: f64 = schedstat.split(' ').next()?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, nanos / 1000.0))
    };
    tasks.flatten().filter_map(of_thread).collect()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_stat_and_numbers_in_status() {
        let stat = "17 (a name) x) S 1 17 17 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(stat_micros(stat, OWN), Some(3_000_000.0));
        let with_children = "17 (a name) x) S 1 17 17 0 -1 4194560 1 0 0 0 250 50 7 3 20 0 1 0 100 1 1";
        assert_eq!(stat_micros(with_children, WITH_CHILDREN), Some(3_100_000.0));
        assert_eq!(stat_micros(with_children, OWN), Some(3_000_000.0));
        assert_eq!(field("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\n", "VmHWM:"), Some(2048.0));
    }

    #[test]
    fn threads_that_ended_are_in_the_coarse_time() {
        let at = |coarse: f64, threads: &[(u64, f64)]| Account {
            coarse_micros: coarse,
            threads: threads.iter().copied().collect(),
            ..Account::default()
        };
        let before = at(1_000_000.0, &[(1, 500_000.0), (2, 500_000.0)]);
        let exact = at(1_100_000.0, &[(1, 550_000.0), (2, 507_000.0), (3, 50_000.0)]).cpu_micros_since(&before);
        assert!((exact - 107_000.0).abs() < 1.0, "{exact}");
        let coarse = at(3_000_000.0, &[(1, 600_000.0)]).cpu_micros_since(&before);
        assert!((coarse - 2_000_000.0).abs() < 1.0, "{coarse}");
    }
}
