//! Flags of Layer 2, the same for the speaker and for standalone.

use std::{net::IpAddr, time::Duration};

use clap::{ArgAction, Args};

use super::{Failure, standalone::duration};
use crate::adapter::layer2::{self, Layer2Options};

/// How Layer 2 is spoken.
#[derive(Debug, Args)]
pub(super) struct Layer2Arguments {
    /// Speak ARP and NDP: absent, where an Eip of protocol layer2 exists; false: never.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    enable_layer2: Option<bool>,
    /// Address of this host at which the other nodes reach its gossip; absent or 0.0.0.0: the Node's first InternalIP.
    #[arg(long, env = "OPENELB_BIND_ADDR", value_name = "ADDRESS")]
    bind_addr: Option<IpAddr>,
    /// UDP port of gossip; the same on all nodes. A port that is taken is tried again.
    #[arg(long, alias = "gossip-port", env = "OPENELB_BIND_PORT", default_value_t = layer2::GOSSIP_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    bind_port: u16,
    /// Secret that authenticates gossip; the same on all nodes. Without one anybody who reaches the port may speak.
    #[arg(
        long,
        env = "MEMBER_LIST_SECRET",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true,
        value_name = "SECRET"
    )]
    secret: String,
    /// How often a node is asked whether it lives.
    #[arg(long, default_value = "200ms", value_parser = duration, value_name = "DURATION")]
    gossip_probe_interval: Duration,
    /// How long its answer may take before others ask it; less than the interval.
    #[arg(long, default_value = "60ms", value_parser = duration, value_name = "DURATION")]
    gossip_probe_timeout: Duration,
    /// How long a node that did not answer may take to object; at least the interval.
    #[arg(long, default_value = "600ms", value_parser = duration, value_name = "DURATION")]
    gossip_suspicion: Duration,
    /// For tests: how long the host had been up when this process started.
    #[arg(long, hide = true, value_parser = duration, value_name = "DURATION")]
    host_uptime: Option<Duration>,
}

impl Layer2Arguments {
    pub(super) fn options(&self) -> Result<Layer2Options, Failure> {
        let (interval, timeout) = (self.gossip_probe_interval, self.gossip_probe_timeout);
        if timeout.is_zero() || timeout >= interval {
            return Err(Failure::Usage(format!(
                "--gossip-probe-timeout {timeout:?} must be above zero and below --gossip-probe-interval {interval:?}"
            )));
        }
        let suspicion = self.gossip_suspicion;
        if suspicion < interval {
            return Err(Failure::Usage(format!(
                "--gossip-suspicion {suspicion:?} is below --gossip-probe-interval {interval:?}: write at least that"
            )));
        }
        Ok(Layer2Options {
            enabled: self.enable_layer2,
            bind: self.bind_addr,
            port: self.bind_port,
            key: Layer2Options::key(&self.secret),
            probe_interval: interval,
            probe_timeout: timeout,
            suspicion,
            host_uptime: self.host_uptime,
            incarnation_file: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Layer2Arguments;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        layer2: Layer2Arguments,
    }

    #[test]
    fn a_suspicion_below_the_probe_interval_is_refused() {
        let refused = |flags: &[&str]| {
            let line = Line::try_parse_from([&["speaker"], flags].concat()).expect("good flags");
            line.layer2.options().err().map(|failure| failure.to_string())
        };
        let message = |suspicion: &str, interval: &str| {
            format!(
                "--gossip-suspicion {suspicion} is below --gossip-probe-interval {interval}: write at least that"
            )
        };
        assert_eq!(refused(&["--gossip-suspicion=50ms"]), Some(message("50ms", "200ms")));
        assert_eq!(refused(&["--gossip-suspicion=0s"]), Some(message("0ns", "200ms")));
        assert_eq!(refused(&["--gossip-probe-interval=1s"]), Some(message("600ms", "1s")));
        assert_eq!(refused(&["--gossip-suspicion=200ms"]), None);
        assert_eq!(refused(&[]), None);
    }
}
