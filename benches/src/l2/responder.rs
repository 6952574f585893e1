//! Whoever answers.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use openelb_l2::{
    InterfaceSelector,
    net::{self, DriverConfig, DriverHandle, WantedAddress},
    speaker::{NodeName, Role, SpeakerConfig},
};
use openelb_lab::{Lab, Process, eventually, wire};

use super::{SERVER, load::pin};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The driver of `openelb-l2`.
    OpenElb,
    /// `recv(2)`, two comparisons, `send(2)`.
    Plain,
    /// The kernel, with the address on the interface.
    Kernel,
    /// keepalived, which puts it there.
    Keepalived,
}

enum Running {
    OpenElb(DriverHandle),
    Plain(Arc<AtomicBool>, JoinHandle<anyhow::Result<()>>),
    Kernel,
    Keepalived(Process),
}

/// A responder that answers.
pub(super) struct Responder<'a> {
    lab: &'a Lab,
    running: Running,
    addresses: Vec<IpAddr>,
}

impl<'a> Responder<'a> {
    /// Starts it on the server, and waits until it answers for all addresses.
    pub(super) fn start(lab: &'a Lab, kind: Kind, addresses: &[IpAddr], core: usize) -> anyhow::Result<Self> {
        let running = match kind {
            Kind::OpenElb => Running::OpenElb(lab.within(SERVER, || openelb(addresses, core))??),
            Kind::Plain => {
                let stop = Arc::new(AtomicBool::new(false));
                let thread = lab.within(SERVER, || plain(addresses, core, Arc::clone(&stop)))??;
                Running::Plain(stop, thread)
            }
            Kind::Kernel => {
                for address in addresses {
                    lab.run(SERVER, &["ip", "addr", "add", &host(*address), "dev", "eth0", "nodad"])?;
                }
                Running::Kernel
            }
            Kind::Keepalived => Running::Keepalived(keepalived(lab, addresses)?),
        };
        Ok(Self { lab, running, addresses: addresses.to_vec() })
    }

    /// The processor time that its thread has had.
    pub(super) fn processor_time(&self) -> anyhow::Result<Duration> {
        let name = match self.running {
            Running::OpenElb(_) => "layer2",
            Running::Plain(..) => "plain",
            Running::Kernel | Running::Keepalived(_) => return Ok(Duration::ZERO),
        };
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name) {
                let text = fs::read_to_string(task.join("schedstat"))?;
                let spent = text.split(' ').next().and_then(|word| word.parse().ok());
                return Ok(Duration::from_nanos(spent.context("no time in schedstat")?));
            }
        }
        Err(anyhow!("there is no thread {name}"))
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        match self.running {
            Running::OpenElb(handle) => {
                let mut snapshots = handle.watch();
                drop(handle);
                eventually("the end of the thread", Duration::from_secs(10), || {
                    Ok(snapshots.borrow_and_update().stopped.then_some(()))
                })?;
            }
            Running::Plain(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                thread.join().map_err(|_| anyhow!("the plain loop panicked"))??;
            }
            Running::Kernel => {
                for address in self.addresses {
                    self.lab.run(SERVER, &["ip", "addr", "del", &host(address), "dev", "eth0"])?;
                }
            }
            Running::Keepalived(process) => {
                self.lab.signal(&process, "TERM")?;
                self.lab.wait_exit(&process, Duration::from_secs(10))?;
            }
        }
        Ok(())
    }
}

fn host(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn openelb(addresses: &[IpAddr], core: usize) -> anyhow::Result<DriverHandle> {
    // Its thread begins where this one is.
    pin(core)?;
    let speaker = SpeakerConfig::new(NodeName::new("server")?, "10.77.0.2:7947".parse()?);
    let mut config = DriverConfig::new(speaker);
    config.settings.probes = 0;
    config.settings.gratuitous = vec![Duration::ZERO];
    let handle = net::spawn(config)?;
    let wanted = |address: &IpAddr| WantedAddress::new(*address, InterfaceSelector::Name("eth0".to_owned()));
    handle.set_addresses(addresses.iter().map(wanted).collect());
    handle.set_peers(Vec::new());
    let mut snapshots = handle.watch();
    eventually("the ownership of every address", Duration::from_secs(30), || {
        let snapshot = snapshots.borrow_and_update().clone();
        let owned = snapshot.addresses.iter().filter(|one| one.status.role == Role::Owner).count();
        Ok((owned == addresses.len()).then_some(()))
    })?;
    Ok(handle)
}

/// The least that a responder in user space can do.
fn plain(
    addresses: &[IpAddr],
    core: usize,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    pin(core)?;
    let own = *addresses.first().context("one address")?;
    let (opened, ready) = mpsc::channel();
    let run = move || {
        let wire = wire::Wire::open("eth0", if own.is_ipv6() { wire::IPV6 } else { wire::ARP })?;
        let mac = wire.mac();
        opened.send(())?;
        let mut room = [0; wire::ROOM];
        let mut reply = [0; 86];
        while !stop.load(Ordering::Relaxed) {
            let Ok(frame) = wire.receive_one(&mut room) else { continue };
            let answer = match own {
                IpAddr::V4(own) => arp_reply(frame, own, mac, &mut reply),
                IpAddr::V6(own) => advertisement(frame, own, mac, &mut reply),
            };
            // Whoever asked asks again.
            let _ = answer.and_then(|length| reply.get(..length)).map(|reply| wire.send(reply));
        }
        Ok(())
    };
    let thread = std::thread::Builder::new().name("plain".to_owned()).spawn(run)?;
    // An error: it says itself why when it is stopped.
    let _ = ready.recv();
    Ok(thread)
}

/// Puts the reply to an ARP request for `own` into `reply`; its length.
fn arp_reply(frame: &[u8], own: Ipv4Addr, mac: [u8; 6], reply: &mut [u8; 86]) -> Option<usize> {
    let request = frame.first_chunk::<42>()?;
    let (sender, target) = (request.get(22..32)?, request.get(38..42)?);
    if request.get(20..22)? != [0, 1] || target != own.octets() {
        return None;
    }
    Some(put(reply, &[sender.get(..6)?, &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac, &own.octets(), sender]))
}

/// Puts the advertisement for a solicitation of `own` into `reply`; its length.
fn advertisement(frame: &[u8], own: Ipv6Addr, mac: [u8; 6], reply: &mut [u8; 86]) -> Option<usize> {
    let (to, sender, target) = (frame.get(6..12)?, frame.get(22..38)?, frame.get(62..78)?);
    let own = own.octets();
    if frame.get(54) != Some(&135) || target != own {
        return None;
    }
    let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255];
    // Solicited, override; and the option with the address.
    let (fixed, option) = ([136, 0, 0, 0, 0x60, 0, 0, 0], [2, 1]);
    let parts: [&[u8]; 8] = [to, &mac, &header, &own, sender, &fixed, &own, &option];
    let written = put(reply, &parts);
    for (to, from) in reply.iter_mut().skip(written).zip(mac) {
        *to = from;
    }
    // RFC 4443, section 2.3: both addresses, length, next header, message.
    let words = reply.get(22..86)?.chunks_exact(2).filter_map(|word| word.first_chunk::<2>());
    let sum = words.fold(32 + 58, |sum: u32, word| sum + u32::from(u16::from_be_bytes(*word)));
    let sum = (sum & 0xffff) + (sum >> 16);
    let [high, low] = u16::try_from(!(sum + (sum >> 16)) & 0xffff).ok()?.to_be_bytes();
    reply.get_mut(56..58)?.copy_from_slice(&[high, low]);
    Some(86)
}

/// Puts one part after the other.
fn put(reply: &mut [u8; 86], parts: &[&[u8]]) -> usize {
    let mut length = 0;
    for (to, from) in reply.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
        length += 1;
    }
    length
}

fn keepalived(lab: &Lab, addresses: &[IpAddr]) -> anyhow::Result<Process> {
    let listed: Vec<String> = addresses.iter().map(|address| host(*address)).collect();
    let text = format!(
        "vrrp_instance bench {{\n  interface eth0\n  state MASTER\n  virtual_router_id 51\n  priority 200\n  \
         advert_int 0.1\n  version 3\n  virtual_ipaddress {{ {} }}\n}}\n",
        listed.join(" ")
    );
    let text = text.replace("vrrp_instance", "global_defs { vrrp_version 3 }\nvrrp_instance");
    let configuration = lab.write("keepalived.conf", &text)?;
    let file = |name: &str| lab.path().join(name).to_string_lossy().into_owned();
    let (pids, configuration) =
        ([file("k.pid"), file("k-vrrp.pid")], configuration.to_string_lossy().into_owned());
    let [pid, vrrp] = &pids;
    let process = lab.spawn(
        "keepalived",
        SERVER,
        &["keepalived", "-n", "-l", "-P", "-f", &configuration, "-p", pid, "-r", vrrp],
    )?;
    eventually("the address of keepalived", Duration::from_secs(20), || {
        let shown = lab.run(SERVER, &["ip", "addr", "show", "dev", "eth0"])?;
        Ok(listed.iter().all(|address| shown.contains(address.as_str())).then_some(()))
    })
    .with_context(|| format!("keepalived says: {}", Lab::log_tail(&process, 5)))?;
    Ok(process)
}
