//! `Debug` of the messages that hold a password: everything but that.

use std::fmt;

use super::apipb;

/// Whether there is a password may be seen.
struct Hidden<'a>(&'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "***" })
    }
}

macro_rules! debug_without_password {
    ($($message:ident { $($field:ident),* $(,)? })*) => {$(
        impl fmt::Debug for apipb::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { auth_password, $($field),* } = self;
                f.debug_struct(stringify!($message))
                    .field("auth_password", &Hidden(auth_password))
                    $(.field(stringify!($field), $field))*
                    .finish()
            }
        }
    )*};
}

debug_without_password! {
    PeerConf {
        description, local_asn, neighbor_address, peer_asn, peer_group, r#type, remove_private, route_flap_damping,
        send_community, neighbor_interface, vrf, allow_own_asn, replace_peer_asn, admin_down,
    }
    PeerState {
        description, local_asn, messages, neighbor_address, peer_asn, peer_group, r#type, queues, remove_private,
        route_flap_damping, send_community, session_state, admin_state, out_q, flops, remote_cap, local_cap,
        router_id,
    }
}

// What is nested in a message that is skipped is skipped, too.
macro_rules! debug_by_name {
    ($($name:ident),*) => {$(
        impl fmt::Debug for apipb::peer_state::$name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str_name())
            }
        }
    )*};
}

debug_by_name! { SessionState, AdminState }

#[cfg(test)]
mod tests {
    use super::apipb;

    #[test]
    fn debug_of_a_peer_does_not_show_passwords() {
        let auth_password = || "hunter2".to_owned();
        let peer = apipb::Peer {
            conf: Some(apipb::PeerConf {
                auth_password: auth_password(),
                neighbor_address: "192.0.2.1".to_owned(),
                ..apipb::PeerConf::default()
            }),
            state: Some(apipb::PeerState {
                auth_password: auth_password(),
                router_id: "192.0.2.2".to_owned(),
                ..apipb::PeerState::default()
            }),
            ..apipb::Peer::default()
        };
        let request = apipb::AddPeerRequest { peer: Some(peer) };
        for shown in [format!("{request:?}"), format!("{request:#?}")] {
            assert!(shown.contains("192.0.2.1") && shown.contains("192.0.2.2"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
