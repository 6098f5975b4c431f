//! What the kernel knows of this process. Where `/proc` is not to be had, the values are missing.

use std::fs;

/// Resources of this process.
#[derive(Clone, Copy, Default, Debug)]
pub struct Resources {
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Resident memory, bytes.
    pub resident: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open descriptors.
    pub max_fds: Option<u64>,
}

impl Resources {
    /// As they are now.
    pub fn now() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Resources {
            cpu_us: u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1000,
            resident: fs::read_to_string("/proc/self/status").ok().and_then(|s| resident(&s)),
            // One of them is the directory being read.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|d| (d.count() as u64).saturating_sub(1)),
            max_fds: limit.current,
        }
    }
}

/// `VmRSS` of proc_pid_status(5), bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData: 1 kB\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        let r = Resources::now();
        assert!(r.resident.unwrap() > 1 << 20 && r.open_fds.unwrap() >= 3 && r.max_fds.unwrap() > 3);
    }
}
