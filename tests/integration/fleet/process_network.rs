//! The network of one process: a TCP proxy that all daemons connect through, and that can cut off one of them by what
//! the kernel knows of its sockets. A cut connection stays open and swallows what is sent, in both directions.

use std::collections::HashSet;
use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct ProcessNetwork {
    pub port: u16,
    cut: watch::Sender<HashSet<u32>>,
}

impl ProcessNetwork {
    /// Listens on a port of its own and passes everything on to the server's.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cut = watch::Sender::new(HashSet::new());
        let states = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, address)) = listener.accept().await {
                let states = states.subscribe();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        pass_on(client, server, address.port(), states).await;
                    }
                });
            }
        });
        Self { port, cut }
    }

    pub fn cut(&self, process: u32) {
        self.cut.send_modify(|cut| {
            cut.insert(process);
        });
    }

    /// New connections pass again; those that were cut are closed, as a router does that has forgotten them.
    pub fn mend(&self, process: u32) {
        self.cut.send_modify(|cut| {
            cut.remove(&process);
        });
    }
}

/// Which of the processes has the socket with this local port (proc(5): `/proc/net/tcp`, `/proc/<pid>/fd`).
fn owner(port: u16, processes: &HashSet<u32>) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!(":{port:04X}");
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1]
            .ends_with(&local)
            .then(|| format!("socket:[{}]", fields[9]))
    })?;
    processes.iter().copied().find(|process| {
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
            return false;
        };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == inode.as_str())
        })
    })
}

async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    port: u16,
    mut states: watch::Receiver<HashSet<u32>>,
) {
    // Looked up when it matters, as long as the socket is there; and not for each packet, because the kernel's list of
    // sockets is long.
    let mut known = None;
    let mut is_cut = move |cut: &HashSet<u32>| {
        if known.is_none() && !cut.is_empty() {
            known = owner(port, cut);
        }
        known.is_some_and(|owner| cut.contains(&owner))
    };
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut cut = is_cut(&states.borrow_and_update());
    loop {
        let passed = tokio::select! {
            changed = states.changed() => {
                let was_cut = cut;
                cut = is_cut(&states.borrow_and_update());
                if changed.is_err() || was_cut && !cut {
                    return;
                }
                continue;
            }
            read = client.read(&mut up) => (read, Direction::Up),
            read = server.read(&mut down) => (read, Direction::Down),
        };
        let (Ok(length), direction) = passed else {
            return;
        };
        if length == 0 && !cut {
            return;
        }
        if length == 0 {
            // Nor does the other side learn of the end.
            let mended = states.wait_for(|states| !is_cut(states)).await;
            drop(mended);
            return;
        }
        if cut {
            continue;
        }
        let written = match direction {
            Direction::Up => server.write_all(&up[..length]).await,
            Direction::Down => client.write_all(&down[..length]).await,
        };
        if written.is_err() {
            return;
        }
    }
}

enum Direction {
    Up,
    Down,
}
