//! The hosts of a roll-out: machines that Ansible reaches by ssh.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{json, Map, Value};
use tdx_seamldr_mock::released_images;

use super::guest::{Guest, Machine};
use super::scenarios::{expect_running, give_images, machine};
use super::Kernel;
use crate::debian::Debian;

/// A host before the roll-out.
struct Host {
    name: &'static str,
    /// The module that runs.
    running: &'static str,
    /// A command in the guest; may be empty.
    before: &'static str,
    /// The leaf whose calls fail from now on; may be empty.
    fault: &'static str,
}

/// The new module of the roll-out is 1.5.16.
const HOSTS: [Host; 5] = [
    Host { name: "alpha", running: "1.5.05", before: "", fault: "" },
    Host { name: "bravo", running: "1.5.16", before: "", fault: "" },
    Host { name: "charlie", running: "1.5.05", before: "offline 1", fault: "" },
    Host { name: "delta", running: "1.5.05", before: "", fault: "TDH.SYS.INIT" },
    Host { name: "echo", running: "1.5.05", before: "", fault: "" },
];

/// Running hosts. Dropping them ends the machines.
pub(crate) struct Hosts {
    _guests: Vec<Guest>,
    /// Per host: the TCP port of its ssh server on loopback, the key, and the plugin's socket.
    pub(crate) reached: Value,
}

/// Boots the hosts with the kernel that `cargo xtask tdx-host FOLDER prepare` has built.
pub(crate) fn start(folder: &Path) -> Result<Hosts> {
    let debian = Debian::new(folder);
    super::give_plugin(&debian)?;
    give_images(&debian, &released_images()?.context("the hosts need Intel's images")?)?;
    let kernel = Kernel::Plain;
    kernel.give_initramfs(&debian, &[])?;
    let initramfs = kernel.give_ssh(&debian)?;
    let key = debian.path("build").join(kernel.folder()).join("key").canonicalize()?;
    let mut guests = Vec::new();
    let mut reached = Map::new();
    for host in &HOSTS {
        let port = free_port()?;
        let network = format!("user,id=network,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22");
        let machine = Machine {
            name: host.name,
            initramfs: Some(initramfs.clone()),
            qemu: vec![
                "-netdev".to_owned(),
                network,
                "-device".to_owned(),
                "virtio-net-pci,netdev=network,romfile=".to_owned(),
            ],
            ..machine(kernel, host.running, 2, &[])
        };
        let mut guest = Guest::start(&debian, &machine).context(host.name)?;
        expect_running(&mut guest, host.running)?;
        guest.succeeds("/start-ssh")?;
        if !host.before.is_empty() {
            guest.succeeds(host.before)?;
        }
        if !host.fault.is_empty() {
            let fault = json!({ "leaf": host.fault, "status": "SYS_BUSY", "times": 1_000_000 });
            guest.change(&json!({ "fault": fault }))?;
        }
        reached.insert(
            host.name.to_owned(),
            json!({ "port": port, "key": key, "control": guest.control.canonicalize()? }),
        );
        guests.push(guest);
    }
    Ok(Hosts { _guests: guests, reached: reached.into() })
}

/// Returns a TCP port that was free just now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
