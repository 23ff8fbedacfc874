//! What a process has used of the machine, as Linux counts it.

use std::{fs, time::Duration};

use crate::Error;

/// The length of a clock tick in `/proc`: 100 a second on every Linux that Rust runs on (`getconf CLK_TCK`).
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of a process so far, user and system, its threads included.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let path = format!("/proc/{pid}/stat");
    let stat = read(&path)?;
    // The second field is the program's name in brackets, which may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    match (fields.next().flatten(), fields.next().flatten()) {
        (Some(user), Some(system)) => Ok(TICK * (user + system)),
        _ => Err(Error::Malformed { what: path, detail: stat }),
    }
}

/// The same, to the microsecond, of the threads that are still there: for processes that keep theirs, as workerd and Node do.
///
/// # Errors
/// As [`cpu_time`].
pub(super) fn fine_cpu_time(pid: u32) -> Result<Duration, Error> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
    let mut total = Duration::ZERO;
    for thread in threads.flatten() {
        let path = thread.path().join("schedstat");
        // A thread may end between the two looks.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
        total += Duration::from_nanos(nanoseconds.unwrap_or_default());
    }
    Ok(total)
}

/// The memory that a process holds, in bytes.
///
/// # Errors
/// As [`cpu_time`].
pub(super) fn resident_bytes(pid: u32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/status");
    let status = read(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or(Error::Malformed { what: path, detail: "no VmRSS".to_owned() })
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_uses_time_and_memory() {
        let own = std::process::id();
        let before = fine_cpu_time(own).unwrap();
        let mut sum = 0_u64;
        while fine_cpu_time(own).unwrap() < before + TICK {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(cpu_time(own).is_ok());
        assert!(resident_bytes(own).unwrap() > 100_000);
    }
}
