//! What the operating system knows about processes: CPU time and memory.

use std::path::PathBuf;

/// CPU time of this process, all threads, in milliseconds.
pub fn process_cpu_ms() -> f64 {
    of(rustix::time::ClockId::ProcessCPUTime)
}

/// CPU time of this thread, in milliseconds.
pub fn thread_cpu_ms() -> f64 {
    of(rustix::time::ClockId::ThreadCPUTime)
}

fn of(clock: rustix::time::ClockId) -> f64 {
    let t = rustix::time::clock_gettime(clock);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

/// Largest resident memory of a process so far, in bytes; `None` where the system does not tell.
pub fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(proc(process).join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of another process, all its threads, in milliseconds and to 10 of them; `None` where the system does not
/// tell.
pub fn cpu_ms_of(process: u32) -> Option<f64> {
    /// Linux counts in hundredths of a second here, whatever its own clock.
    const TICK_MS: f64 = 10.0;
    let stat = std::fs::read_to_string(proc(process).join("stat")).ok()?;
    // The name of the program stands in brackets and may hold spaces.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) * TICK_MS)
}

/// Name of the processor, as the system gives it.
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

/// Processors that this program may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn proc(process: u32) -> PathBuf {
    PathBuf::from("/proc").join(process.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn clocks_advance() {
        let (process, thread) = (process_cpu_ms(), thread_cpu_ms());
        let mut x = 1u64;
        while thread_cpu_ms() - thread < 1.0 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(process_cpu_ms() > process);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_about_processes() {
        let own = std::process::id();
        assert!(peak_memory(own).unwrap() > 1 << 20);
        assert!(cpu_ms_of(own).is_some());
        assert!(peak_memory(u32::MAX).is_none());
    }
}
