//! Ports on 127.0.0.1. Those that we choose ourselves stay ours among all our processes as long as their guard
//! lives, so that stacks that start at the same time do not meet.

use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::{Error, files::FolderLock, setup::cache::Cache};

/// Below the range that the system hands out to outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port to listen on.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reserved: Option<FolderLock>,
}

impl Port {
    /// The port that the person asked for.
    ///
    /// # Errors
    /// [`Error::PortTaken`], with what to do.
    pub fn fixed(number: u16, remedy: &'static str) -> Result<Self, Error> {
        if is_free(number) {
            Ok(Self { number, _reserved: None })
        } else {
            Err(Error::PortTaken { port: number, remedy })
        }
    }

    /// Any port that nobody uses; `preferred` if that is still free.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none left.
    pub fn free(preferred: Option<u16>) -> Result<Self, Error> {
        /// Where this process looks next: processes start at different places and never look twice.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Not the system's folder for temporary files, where somebody else might have laid something in our way.
        let locks = Cache::open()?.path("ports");
        let start = u16::try_from(process::id() % 97 * 123 % u32::from(COUNT)).unwrap_or_default();
        let chosen =
            (0..COUNT).map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
        for number in preferred.into_iter().chain(chosen) {
            let Some(reserved) = FolderLock::try_take(&locks.join(format!("{number}.lock")))? else {
                continue;
            };
            if is_free(number) {
                return Ok(Self { number, _reserved: Some(reserved) });
            }
        }
        Err(Error::Refused("no port between 20000 and 32000 is free on 127.0.0.1".to_owned()))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_handed_out_twice() {
        let first = Port::free(None).unwrap();
        let second = Port::free(Some(first.number())).unwrap();
        assert_ne!(first.number(), second.number());
    }

    #[test]
    fn a_taken_port_is_refused_with_what_to_do() {
        let port = Port::free(None).unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let error = Port::fixed(port.number(), "try others").unwrap_err().to_string();
        assert!(error.contains("is taken") && error.contains("try others"), "{error}");
    }
}
