//! GoBGP's gRPC interface over sockets: certificates of clients, a Unix socket, more connections than there are places.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![cfg(feature = "grpc")]

use std::{sync::Arc, time::Duration};

use openelb_bgp::{
    grpc::{
        apipb::{self, gobgp_api_client::GobgpApiClient},
        core::{Access, Core, Embedded},
        server::{self, Address, Listener, MAX_CONNECTIONS, Tls},
        v3,
    },
    net,
    speaker::SpeakerConfig,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

const DEADLINE: Duration = Duration::from_secs(20);
const ASN: u32 = 65000;

/// A server, until it is dropped.
struct Bench {
    address: Address,
    server: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bench {
    async fn new(address: &str, tls: Option<Tls>) -> Self {
        let (speaker, _) = net::spawn(SpeakerConfig::new(ASN, "192.0.2.10".parse().unwrap())).unwrap();
        let api = v3::Api::new(Core::new(Arc::new(Embedded::new(speaker))), Access::Write);
        let listener = Listener::bind(&address.parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let server = tokio::spawn(async move { server::serve(api, listener, tls).await.unwrap() });
        Self { address, server }
    }

    fn endpoint(&self, scheme: &str) -> Endpoint {
        Endpoint::from_shared(format!("{scheme}://{}", self.address)).unwrap()
    }

    async fn asn(&self, tls: Option<ClientTlsConfig>) -> Result<u32, Status> {
        let endpoint = match tls {
            Some(tls) => self.endpoint("https").tls_config(tls).unwrap(),
            None => self.endpoint("http"),
        };
        asn(endpoint.connect_lazy()).await
    }
}

/// Asks for the speaker.
async fn asn(channel: Channel) -> Result<u32, Status> {
    let call = async {
        let answer = GobgpApiClient::new(channel).get_bgp(apipb::GetBgpRequest {}).await?;
        Ok(answer.into_inner().global.unwrap().asn)
    };
    timeout(DEADLINE, call).await.expect("an answer")
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// A certificate for this name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn who_has_no_certificate_of_the_right_authority_is_not_heard() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue("localhost");
    let tls = |client_ca| Some(Tls { certificate: certificate.clone(), key: key.clone(), client_ca });
    let anybody = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(&authority.certificate));
    let with = |(certificate, key): (String, String)| {
        Some(anybody.clone().identity(Identity::from_pem(certificate, key)))
    };

    let open = Bench::new("127.0.0.1:0", tls(None)).await;
    assert_eq!(open.asn(Some(anybody.clone())).await.unwrap(), ASN);
    open.asn(None).await.expect_err("not in the clear");

    let closed = Bench::new("127.0.0.1:0", tls(Some(authority.certificate.clone()))).await;
    closed.asn(with(other.issue("client"))).await.expect_err("a stranger's");
    closed.asn(Some(anybody.clone())).await.expect_err("none");
    closed.asn(None).await.expect_err("not in the clear");
    assert_eq!(closed.asn(with(authority.issue("client"))).await.unwrap(), ASN);
}

#[tokio::test]
async fn a_key_that_does_not_fit_is_an_error() {
    let authority = Authority::new();
    let ((certificate, _), (_, key)) = (authority.issue("localhost"), authority.issue("localhost"));
    let (speaker, _) = net::spawn(SpeakerConfig::new(ASN, "192.0.2.10".parse().unwrap())).unwrap();
    let api = v3::Api::new(Core::new(Arc::new(Embedded::new(speaker))), Access::Write);
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let served = server::serve(api, listener, Some(Tls { certificate, key, client_ca: None }));
    let error = timeout(DEADLINE, served).await.unwrap().unwrap_err().to_string();
    assert!(!error.is_empty() && !error.contains("PRIVATE"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_is_served_taken_over_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gobgp.sock");
    // One that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let text = format!("unix:{}", path.display());
    let mut bench = Bench::new(&text, None).await;
    let taken = Listener::bind(&bench.address).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let channel = Endpoint::from_shared(text).unwrap().connect_lazy();
    assert_eq!(asn(channel).await.unwrap(), ASN);
    bench.server.abort();
    assert!((&mut bench.server).await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test]
async fn more_connections_than_there_are_places_are_closed_and_a_place_is_had_again() {
    let bench = Bench::new("127.0.0.1:0", None).await;
    let Address::Tcp(address) = bench.address else { panic!("{:?}", bench.address) };
    let mut channels = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let channel = timeout(DEADLINE, bench.endpoint("http").connect()).await.unwrap().unwrap();
        assert_eq!(asn(channel.clone()).await.unwrap(), ASN);
        channels.push(channel);
    }
    let mut further = TcpStream::connect(address).await.unwrap();
    let mut octet = [0];
    assert_eq!(timeout(DEADLINE, further.read(&mut octet)).await.unwrap().unwrap(), 0, "it is closed");
    bench.asn(None).await.expect_err("there is no place");
    assert_eq!(asn(channels[0].clone()).await.unwrap(), ASN, "the others are not touched");
    channels.pop();
    // The server hears of it in a moment.
    let again = async {
        while bench.asn(None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again).await.expect("a place");
}

/// Until the server closes: how long it took.
async fn closed(mut connection: impl tokio::io::AsyncRead + Unpin) -> Duration {
    let began = Instant::now();
    let mut octets = Vec::new();
    let read = timeout(Duration::from_secs(600), connection.read_to_end(&mut octets)).await;
    // With or without a word of TLS.
    let _ = read.expect("it is held for ever");
    began.elapsed()
}

fn is_ten_seconds(took: Duration) {
    assert!((10..15).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tls_client_that_makes_no_call_loses_its_place_wherever_it_stops() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let bench = Bench::new("127.0.0.1:0", Some(Tls { certificate, key, client_ca: None })).await;
    let Address::Tcp(address) = bench.address else { panic!("{:?}", bench.address) };
    // Before the handshake.
    is_ten_seconds(closed(TcpStream::connect(address).await.unwrap()).await);
    // In it: a record of 512 octets begins.
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 64]].concat()).await.unwrap();
    is_ten_seconds(closed(half).await);
    // After it, without and with the beginning of HTTP/2.
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.flush().await.unwrap();
        is_ten_seconds(closed(stream).await);
    }
    let roots = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(&authority.certificate));
    assert_eq!(bench.asn(Some(roots)).await.unwrap(), ASN);
}

async fn prefixes(client: &mut GobgpApiClient<Channel>) -> Vec<String> {
    let request = apipb::ListPathRequest { family: Some(IPV4), ..apipb::ListPathRequest::default() };
    let mut answers = client.list_path(request).await.unwrap().into_inner();
    let mut prefixes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        prefixes.push(answer.destination.unwrap().prefix);
    }
    prefixes
}

const IPV4: apipb::Family = apipb::Family { afi: 1, safi: 1 };

fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/apipb.{name}"), value: message.encode_to_vec() }
}

fn path(prefix: &str, withdrawn: bool) -> apipb::Path {
    let nlri = apipb::IpAddressPrefix { prefix: prefix.to_owned(), prefix_len: 32 };
    let next_hop = apipb::NextHopAttribute { next_hop: "192.0.2.10".to_owned() };
    apipb::Path {
        family: Some(IPV4),
        nlri: Some(any("IPAddressPrefix", &nlri)),
        pattrs: vec![
            any("OriginAttribute", &apipb::OriginAttribute { origin: 0 }),
            any("NextHopAttribute", &next_hop),
        ],
        is_withdraw: withdrawn,
        ..apipb::Path::default()
    }
}

#[tokio::test]
async fn a_stream_of_paths_is_taken_message_by_message() {
    let bench = Bench::new("127.0.0.1:0", None).await;
    let channel = timeout(DEADLINE, bench.endpoint("http").connect()).await.unwrap().unwrap();
    let mut client = GobgpApiClient::new(channel);
    let message = |paths: &[(&str, bool)]| apipb::AddPathStreamRequest {
        paths: paths.iter().map(|(prefix, withdrawn)| path(prefix, *withdrawn)).collect(),
        ..apipb::AddPathStreamRequest::default()
    };
    let first = message(&[("198.51.100.1", false), ("198.51.100.2", false)]);
    let second = message(&[("198.51.100.1", true), ("198.51.100.3", false)]);
    client.add_path_stream(tokio_stream::iter([first, second])).await.unwrap();
    assert_eq!(prefixes(&mut client).await, ["198.51.100.2/32", "198.51.100.3/32"]);

    // Of a message that cannot be read nothing is taken; those before it stay.
    let good = message(&[("198.51.100.4", false)]);
    let bad = message(&[("198.51.100.5", false), ("no address", false)]);
    let never = message(&[("198.51.100.6", false)]);
    let refused = client.add_path_stream(tokio_stream::iter([good, bad, never])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert_eq!(prefixes(&mut client).await, ["198.51.100.2/32", "198.51.100.3/32", "198.51.100.4/32"]);

    // One whose client goes away in the middle keeps what was said.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.add_path_stream(stream).await }
    });
    sender.send(message(&[("198.51.100.7", false)])).await.unwrap();
    let taken = async {
        while !prefixes(&mut client).await.contains(&"198.51.100.7/32".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, taken).await.expect("a path is taken before the stream ends");
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(prefixes(&mut client).await.len(), 4);
}
