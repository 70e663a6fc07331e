//! Something that answers calls: what runtime and mesh are for each other.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use crate::Failure;

/// A call that is under way.
pub type Calling<B> = Pin<Box<dyn Future<Output = Result<Response<B>, Failure>> + Send>>;

/// Any [`Service`] of HTTP requests that fails with a [`Failure`]. Clones share it; a call costs one allocation, that of its future.
pub struct CallService<B>(Arc<dyn Answer<B>>);

impl<B: Send + 'static> CallService<B> {
    /// From a `tower` service. It is cloned for each call, and waited for until it is ready.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<B>, Response = Response<B>, Error = Failure>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(Arc::new(service))
    }

    /// From a function, which is neither cloned nor asked whether it is ready.
    pub fn from_fn<F, R>(function: F) -> Self
    where
        F: Fn(Request<B>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<B>, Failure>> + Send + 'static,
    {
        Self(Arc::new(Function(function)))
    }

    /// Has `request` answered.
    #[must_use]
    pub fn answer(&self, request: Request<B>) -> Calling<B> {
        self.0.answer(request)
    }
}

impl<B> Clone for CallService<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> std::fmt::Debug for CallService<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallService").finish_non_exhaustive()
    }
}

impl<B: Send + 'static> Service<Request<B>> for CallService<B> {
    type Response = Response<B>;
    type Error = Failure;
    type Future = Calling<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Calling<B> {
        self.answer(request)
    }
}

trait Answer<B>: Send + Sync {
    fn answer(&self, request: Request<B>) -> Calling<B>;
}

impl<S, B> Answer<B> for S
where
    S: Service<Request<B>, Response = Response<B>, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    fn answer(&self, request: Request<B>) -> Calling<B> {
        let mut service = self.clone();
        Box::pin(async move {
            poll_fn(|context| service.poll_ready(context)).await?;
            service.call(request).await
        })
    }
}

struct Function<F>(F);

impl<F, R, B> Answer<B> for Function<F>
where
    F: Fn(Request<B>) -> R + Send + Sync,
    R: Future<Output = Result<Response<B>, Failure>> + Send + 'static,
{
    fn answer(&self, request: Request<B>) -> Calling<B> {
        Box::pin((self.0)(request))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Ready, ready},
        task::Waker,
    };

    use super::*;
    use crate::FailureKind;

    /// Ready when it is asked for the third time.
    #[derive(Clone)]
    struct Slow(u32);

    impl Service<Request<()>> for Slow {
        type Response = Response<()>;
        type Error = Failure;
        type Future = Ready<Result<Response<()>, Failure>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            self.0 += 1;
            match self.0 {
                3 => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            assert_eq!(self.0, 3, "called before it was ready");
            ready(match request.uri().path() {
                "/denied" => Err(FailureKind::Denied.into()),
                _ => Ok(Response::new(())),
            })
        }
    }

    #[test]
    fn each_call_waits_until_the_service_is_ready_for_it() {
        let service = CallService::new(Slow(0));
        let mut context = Context::from_waker(Waker::noop());
        for (path, expected) in [("/", None), ("/denied", Some(FailureKind::Denied))] {
            let request = Request::get(path).body(()).expect("a request");
            let mut calling = service.clone().answer(request);
            for _ in 0..2 {
                assert!(calling.as_mut().poll(&mut context).is_pending());
            }
            let Poll::Ready(answer) = calling.as_mut().poll(&mut context) else {
                panic!("{path} is not answered");
            };
            assert_eq!(answer.err().map(|failure| failure.kind), expected, "{path}");
        }
    }
}
