//! A client's connection to a listener of a Gateway for TCP or TLS: taken as it comes or opened, and carried to the Service that it is for.
//!
//! Invariant: who asks for what no listener has, or for a share that leads to nobody, and who is not let in by the policies of the Gateway, is
//! reset before anything is answered.

use std::{io, net::SocketAddr};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;
use weft_call::{Failure, FailureKind};

use super::{Meant, StreamPlace, Taken};
use crate::{
    Outbound,
    carry::{CONNECT_MAX, Way, carry, reset_at_end},
    front::Front,
    guards::Entered,
    hello::Begun,
    outbound::Client,
};

/// A client, and the place that it came to.
type Ends = (SocketAddr, SocketAddr);

/// A connection to a listener of TCP.
///
/// # Errors
/// When nobody is there for it.
pub(crate) async fn plain(
    outbound: &Outbound,
    place: &StreamPlace,
    stream: TcpStream,
    ends: Ends,
) -> Result<(), Failure> {
    let meant = reset_unless(place.meant("", rand::random()), &stream)?;
    let way = let_in(outbound, meant, ends, None, &stream)?;
    carry(outbound, way, Begun::new(stream)).await
}

/// A connection to a listener of TLS, of which was read which name it asks for.
///
/// # Errors
/// When nobody is there for it, or its client and the listener do not agree.
pub(crate) async fn opened(
    outbound: &Outbound,
    place: &StreamPlace,
    name: &str,
    begun: Begun,
    ends: Ends,
) -> Result<(), Failure> {
    let taken = reset_unless(place.taken(name), begun.stream())?;
    let meant = reset_unless(place.meant(name, rand::random()), begun.stream())?;
    let way = let_in(outbound, meant, ends, Some(name), begun.stream())?;
    match taken {
        Taken::Whole => carry(outbound, way, begun).await,
        Taken::Opened(config) => {
            let shaken = timeout(CONNECT_MAX, TlsAcceptor::from(config).accept(begun)).await;
            let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            carry(outbound, way, shaken.map_err(unheard)?).await
        }
    }
}

impl StreamPlace {
    /// Whether a name is rather one of these listeners' than one of HTTPS at the same place.
    pub(crate) fn goes_before(&self, https: &Front, name: &str) -> bool {
        let own = self.specificity(name);
        own.is_some() && own > https.specificity(name)
    }
}

/// How a connection goes on, if the policies of its Gateway let it in; else it is reset when it is dropped.
fn let_in(
    outbound: &Outbound,
    meant: Meant,
    (client, place): Ends,
    sni: Option<&str>,
    stream: &TcpStream,
) -> Result<Way, Failure> {
    let Meant {
        namespace,
        name,
        port,
        tls,
        gateway,
    } = meant;
    let authority = format!("{name}.{namespace}.svc:{port}");
    let ip = client.ip().to_canonical();
    if let Some(gateway) = gateway {
        let entered = Entered {
            client: ip,
            at: Some(place),
            sni,
        };
        let admitted = outbound.admit(&gateway, entered, &authority);
        admitted.inspect_err(|_| reset_at_end(stream))?;
    }
    Ok(Way {
        authority,
        client: Client {
            ip,
            only_here: false,
        },
        tls,
    })
}

/// A client that does not speak TLS, or not ours.
fn unheard(error: io::Error) -> Failure {
    let told = "its client and the listener do not agree".to_owned();
    Failure::new(FailureKind::BadRequest, told).with_detail(error.to_string())
}

/// What there is; where there is nothing, the connection is reset when it is dropped, as where nothing listens.
fn reset_unless<T>(found: Option<T>, stream: &TcpStream) -> Result<T, Failure> {
    found.ok_or_else(|| {
        reset_at_end(stream);
        Failure::from(FailureKind::NotHere)
    })
}
