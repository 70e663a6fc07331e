//! Ways to an address that nobody granted.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

fn v4(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port,
        address: (127, 0, 0, 1),
    })
}

fn mapped(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress {
        port,
        flow_info: 0,
        address: (0, 0, 0, 0, 0, 0xffff, 0x7f00, 1),
        scope_id: 0,
    })
}

fn loopback6(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress {
        port,
        flow_info: 0,
        address: (0, 0, 0, 0, 0, 0, 0, 1),
        scope_id: 0,
    })
}

/// Connects to `port` of the host, listens, sends datagrams and asks for names.
pub fn sockets(port: &str) -> String {
    let Ok(port) = port.parse() else {
        return "?PORT is missing".to_owned();
    };
    let connect = |family, address| -> Result<(), ErrorCode> {
        let socket = create_tcp_socket(family)?;
        socket.start_connect(&instance_network(), address)?;
        socket.subscribe().block();
        socket.finish_connect().map(drop)
    };
    let listen = || -> Result<(), ErrorCode> {
        let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
        socket.start_bind(&instance_network(), v4(0))?;
        socket.finish_bind()?;
        socket.start_listen()?;
        socket.finish_listen()
    };
    let datagram = |to| -> Result<(), ErrorCode> {
        let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
        let local = IpSocketAddress::Ipv4(Ipv4SocketAddress {
            port: 0,
            address: (0, 0, 0, 0),
        });
        socket.start_bind(&instance_network(), local)?;
        socket.finish_bind()?;
        socket.stream(Some(to)).map(drop)
    };
    let name = |name: &str| -> Result<(), ErrorCode> {
        let answers = resolve_addresses(&instance_network(), name)?;
        answers.subscribe().block();
        answers.resolve_next_address().map(drop)
    };
    format!(
        "tcp {:?}, tcp6 {:?}, mapped {:?}, listen {:?}, udp {:?}, name {:?}",
        connect(IpAddressFamily::Ipv4, v4(port)),
        connect(IpAddressFamily::Ipv6, loopback6(port)),
        connect(IpAddressFamily::Ipv6, mapped(port)),
        listen(),
        datagram(v4(port)),
        name("localhost"),
    )
}

/// One request to `SCHEME,AUTHORITY,PATH,HEADER=VALUE`; what is missing is left out.
pub fn request(argument: &str) -> String {
    // Brackets and backslashes are not for a path.
    let argument = argument
        .replace("%5B", "[")
        .replace("%5D", "]")
        .replace("%5C", "\\");
    let mut parts = argument.split(',');
    let mut part = || parts.next().unwrap_or_default();
    let (scheme, authority, path, header) = (part(), part(), part(), part());
    let headers = Fields::new();
    if let Some((name, value)) = header.split_once('=')
        && let Err(error) = headers.append(name, value.as_bytes())
    {
        return format!("{error:?}");
    }
    let request = OutgoingRequest::new(headers);
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    if request.set_scheme(Some(&scheme)).is_err()
        || request.set_authority(Some(authority)).is_err()
        || request.set_path_with_query(Some(path)).is_err()
    {
        return "not a request".to_owned();
    }
    match outgoing_handler::handle(request, None) {
        Ok(response) => {
            response.subscribe().block();
            match response.get() {
                Some(Ok(Ok(response))) => format!("{}", response.status()),
                Some(Ok(Err(code))) => format!("{code:?}"),
                _ => "nothing".to_owned(),
            }
        }
        Err(code) => format!("{code:?}"),
    }
}
