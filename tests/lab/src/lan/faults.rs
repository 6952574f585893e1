//! What goes wrong on a LAN.

use std::{io, net::UdpSocket, time::Duration};

use anyhow::ensure;

use super::{DEADLINE, FABRIC, Lan, node};
use crate::wait::eventually;

impl Lan {
    /// Cuts a node off silently: no link goes down, frames just do not arrive.
    ///
    /// # Errors
    /// iproute2 failed.
    pub fn cut_off(&self, number: u8) -> anyhow::Result<()> {
        self.lab.script(&format!("ip -n {FABRIC} link set {} nomaster", node(number)))
    }

    /// Plugs it in again, also after [`part`](Self::part).
    ///
    /// # Errors
    /// iproute2 failed.
    pub fn plug_in(&self, number: u8) -> anyhow::Result<()> {
        self.lab.script(&format!("ip -n {FABRIC} link set {} master br0", node(number)))
    }

    /// Moves a node to a switch of its own, or to one that it shares with others of the same number, 1 to 9.
    ///
    /// # Errors
    /// iproute2 failed.
    pub fn part(&self, number: u8, switch: u8) -> anyhow::Result<()> {
        self.lab.script(&format!(
            "ip -n {FABRIC} link show br{switch} >/dev/null 2>&1 || ip -n {FABRIC} link add br{switch} type bridge
ip -n {FABRIC} link set br{switch} up
ip -n {FABRIC} link set {} master br{switch}",
            node(number)
        ))
    }

    /// Pulls the cable of a node, or puts it back.
    ///
    /// # Errors
    /// iproute2 failed.
    pub fn set_cable(&self, number: u8, plugged: bool) -> anyhow::Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.lab.script(&format!("ip -n {FABRIC} link set {} {state}", node(number)))
    }

    /// Waits until a node whose cable was pulled reaches the client again. What it had to send meanwhile made its kernel ask
    /// for the client in vain, which it does anew no sooner than a second later (RetransTimer, RFC 4861 section 10): until
    /// then it can answer for an address, but send nothing.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_reach(&self, number: u8) -> anyhow::Result<()> {
        for (from, client) in [("0.0.0.0:0", "192.168.50.2:9"), ("[::]:0", "[fd00:50::2]:9")] {
            // The client says that nobody listens there.
            let asked = || -> io::Result<()> {
                let socket = UdpSocket::bind(from)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                socket.connect(client)?;
                socket.send(&[0])?;
                socket.recv(&mut [0]).map(drop)
            };
            eventually(&format!("node-{number} reaches {client}"), DEADLINE, || {
                let answer = self.lab.within(&node(number), asked)?;
                let refused = answer.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
                ensure!(refused, "{answer:?}");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Nothing that this node sends arrives at the other nodes any more; the client hears it, and it hears all.
    ///
    /// # Errors
    /// nft refuses the rule.
    pub fn mute(&self, number: u8) -> anyhow::Result<()> {
        let rules = format!(
            "table bridge lab {{
  chain forward {{
    type filter hook forward priority 0
    iifname \"{}\" oifname \"node-*\" drop
  }}
}}
",
            node(number)
        );
        let file = self.lab.write("mute.nft", &rules)?;
        self.lab.run(FABRIC, &["nft", "-f", &file.to_string_lossy()]).map(drop)
    }

    /// Ends [`mute`](Self::mute).
    ///
    /// # Errors
    /// nft refuses.
    pub fn unmute(&self) -> anyhow::Result<()> {
        self.lab.run(FABRIC, &["nft", "delete", "table", "bridge", "lab"]).map(drop)
    }
}
