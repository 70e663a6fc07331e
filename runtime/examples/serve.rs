//! Serves one component over HTTP/1.1 and HTTP/2 on every core: the runtime alone, as a peer to `wasmtime serve`.
//!
//! `cargo run --example serve -- COMPONENT [--addr 127.0.0.1:8080] [--cores N] [--reuse REQUESTS[/CONCURRENT]]
//! [--keep-resident BYTES] [--table-keep-resident BYTES] [--no-pagemap] [--instances N] [--epoch-micros N]`
//!
//! `--reuse 1` means a fresh instance for every request, whatever the component's generation of WASI.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use weft_runtime::{Body, BoxError, Cores, Engine, InstancePolicy, Limits, LogSink, Workload};

struct Options {
    component: String,
    addr: SocketAddr,
    cores: usize,
    reuse: Option<InstancePolicy>,
    keep_resident: Option<usize>,
    table_keep_resident: Option<usize>,
    epoch_micros: Option<u64>,
    pagemap: bool,
    instances: u32,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        component: String::new(),
        addr: SocketAddr::from(([127, 0, 0, 1], 8080)),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        reuse: None,
        keep_resident: None,
        table_keep_resident: None,
        epoch_micros: None,
        pagemap: true,
        instances: 1_000,
    };
    let mut args = std::env::args().skip(1);
    fn parse<T: std::str::FromStr>(flag: &str, text: Option<String>) -> Result<T, String> {
        let text = text.ok_or(format!("{flag} needs a value"))?;
        text.parse()
            .map_err(|_| format!("{flag} does not take {text:?}"))
    }
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--addr" => options.addr = parse(&arg, args.next())?,
            "--cores" => options.cores = parse(&arg, args.next())?,
            "--instances" => options.instances = parse(&arg, args.next())?,
            "--keep-resident" => options.keep_resident = Some(parse(&arg, args.next())?),
            "--table-keep-resident" => {
                options.table_keep_resident = Some(parse(&arg, args.next())?);
            }
            "--epoch-micros" => options.epoch_micros = Some(parse(&arg, args.next())?),
            "--no-pagemap" => options.pagemap = false,
            "--reuse" => {
                let text: String = parse(&arg, args.next())?;
                let (requests, concurrent) = text.split_once('/').unwrap_or((&text, "1"));
                options.reuse = Some(InstancePolicy::Pooled {
                    max_requests: parse(&arg, Some(requests.into()))?,
                    max_concurrent: parse(&arg, Some(concurrent.into()))?,
                    idle: Duration::from_secs(1),
                });
            }
            _ if options.component.is_empty() && !arg.starts_with("--") => options.component = arg,
            _ => return Err(format!("what is {arg}?")),
        }
    }
    if options.component.is_empty() {
        return Err("which component?".into());
    }
    Ok(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let mut engine = Engine::builder().instances_max(options.instances);
    if let Some(bytes) = options.keep_resident {
        engine = engine.memory_keep_resident_bytes(bytes);
    }
    if let Some(bytes) = options.table_keep_resident {
        engine = engine.table_keep_resident_bytes(bytes);
    }
    if let Some(micros) = options.epoch_micros {
        engine = engine.epoch_tick(Duration::from_micros(micros));
    }
    if !options.pagemap {
        engine = engine.pagemap_scan(false);
    }
    let engine = engine.build()?;
    let artifact = engine.load(std::fs::read(&options.component)?).await?;
    let mut workload = Workload::builder(&engine, &artifact)
        .name(&options.component)
        .limits(Limits {
            memory_bytes: 16 << 30,
            ..Limits::default()
        })
        .stdout(LogSink::new(|bytes| {
            print!("{}", String::from_utf8_lossy(bytes))
        }))
        .stderr(LogSink::new(|bytes| {
            eprint!("{}", String::from_utf8_lossy(bytes))
        }));
    if let Some(reuse) = options.reuse {
        workload = workload.instance_policy(reuse);
    }
    let workload = workload.build()?;
    let cores = Cores::start(options.cores)?;
    let mut addr = options.addr;
    for core in 0..cores.len() {
        let listener = listen(addr)?;
        addr = listener.local_addr()?;
        drop(cores.spawn_on(core, accept(listener, workload.clone())));
    }
    println!(
        "serving {:?} with {:?} on http://{addr}",
        artifact.kind(),
        workload.instance_policy()
    );
    tokio::signal::ctrl_c().await?;
    workload.stop(Duration::from_secs(5)).await;
    cores.shutdown(Duration::ZERO).await;
    println!("{:#?}", workload.usage());
    Ok(())
}

/// One listener a core: the kernel spreads connections over them.
fn listen(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

async fn accept(listener: std::net::TcpListener, workload: Workload) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, usually: they come back as connections close.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it, small responses may wait; a socket that cannot do it works all the same.
        let _ = stream.set_nodelay(true);
        let workload = workload.clone();
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).pipeline_flush(true);
            server.http2().timer(TokioTimer::new());
            let service = hyper::service::service_fn(|request| {
                let workload = workload.clone();
                async move { answer(&workload, request).await }
            });
            // A connection that breaks is the client's affair.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    workload: &Workload,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let request = request.map(|body| Body::new(body.map_err(|error| Box::new(error) as BoxError)));
    Ok(workload.call(request).await.unwrap_or_else(|error| {
        let mut response = Response::new(Body::full(format!("{error}\n")));
        *response.status_mut() = error.status();
        response
    }))
}
