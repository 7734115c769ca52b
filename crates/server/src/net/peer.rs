//! Peers, as shares are counted: by address, or by network for IPv6, where one caller has many addresses.

use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that identify the network. Hosts choose the rest themselves.
const NETWORK_BITS: u32 = 64;

/// The key of a peer: an IPv4 address as it is, an IPv6 address as its network of 64 bits.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> NETWORK_BITS << NETWORK_BITS))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_an_ipv6_network_are_one_peer() {
        let of = |text: &str| text.parse().map(network).map(|peer: IpAddr| peer.to_string()).unwrap_or_default();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::1"), "::1");
    }
}
