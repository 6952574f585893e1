//! Stands in for `openelb_ipam::RangeList` until it has landed.
use std::net::IpAddr;
/// Ranges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeList(Vec<(IpAddr, IpAddr)>);
impl RangeList {
    /// Does it hold this address?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(a, b)| a.is_ipv4() == address.is_ipv4() && *a <= address && address <= *b)
    }
}
impl std::str::FromStr for RangeList {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut list = Vec::new();
        for part in text.split([',', ';', ' ', '\n']).filter(|p| !p.is_empty()) {
            if let Ok(net) = part.parse::<ipnet::IpNet>() {
                list.push((net.network(), net.broadcast()));
            } else if let Some((a, b)) = part.split_once('-') {
                list.push((a.parse().map_err(|_| part.to_owned())?, b.parse().map_err(|_| part.to_owned())?));
            } else {
                let a: IpAddr = part.parse().map_err(|_| part.to_owned())?;
                list.push((a, a));
            }
        }
        Ok(Self(list))
    }
}
