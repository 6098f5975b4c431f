//! Fuzz entry: any files are read or refused, and the same login always meets the same rule.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{IdentMaps, Login, Network, Origin, Rules, Source};

/// Files in memory, by name.
pub(super) struct Memory(pub(super) BTreeMap<PathBuf, String>);

impl Source for Memory {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }
}

/// The bytes are the files `a`, `b.conf` and so on, with NUL bytes between; `a` is read as rules and as maps.
pub fn fuzz_hba(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let names = ["a", "b.conf", "c.conf", "d"].map(PathBuf::from);
    let files = Memory(names.into_iter().zip(text.split('\0').map(str::to_owned)).collect());
    let rules = Rules::load(Path::new("a"), &files);
    let maps = IdentMaps::load(Path::new("a"), &files);
    let networks = || {
        Ok::<_, io::Error>(vec![Network { address: IpAddr::from([10, 0, 0, 1]), mask: IpAddr::from([255, 0, 0, 0]) }])
    };
    if let Ok(rules) = &rules {
        for origin in [Origin::Local, Origin::Tcp { address: IpAddr::from([10, 1, 2, 3]), tls: false }] {
            for (user, database) in [("app", "app"), ("", "all"), ("o'neil", "x y")] {
                let login = Login { origin, user, database, replication: false };
                let found = rules.find(&login, &networks).expect("the closure cannot fail");
                let by_hand = rules.iter().find(|rule| rule.matches(&login, &networks).is_ok_and(|yes| yes));
                assert_eq!(found, by_hand);
            }
        }
    }
    if let Ok(maps) = &maps {
        for user in ["app", "root", "app@example.com"] {
            let _ = maps.admits(Some("m"), user, "app");
            assert_eq!(maps.admits(None, user, "app"), user == "app");
        }
    }
    for error in rules.err().into_iter().chain(maps.err()).flatten() {
        assert!(!error.to_string().contains('\0'));
    }
}
